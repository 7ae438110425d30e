//! What a run looks like, character by character, on stdout and stderr.

mod actions;

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::event::{
    ImageResult, LayerResult, PlannedLayer, PushPlan, PushStep, PushedLayer, Session, TaskId, TaskKind, TaskOutcome,
};
use crate::oci::{DiffId, Digest};

/// A writer whose bytes can be looked at, write by write.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffer {
    fn writes(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().expect("no test panics while it writes")
    }

    fn text(&self) -> String {
        String::from_utf8(self.writes().concat()).expect("only text is printed")
    }

    /// Where writes ended.
    fn ends(&self) -> Vec<usize> {
        let lengths: Vec<_> = self.writes().iter().map(Vec::len).collect();
        (1..=lengths.len()).map(|count| lengths[..count].iter().sum()).collect()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const PLAIN: Look = Look {
    format: Format::Human,
    quiet: false,
    verbose: false,
    color: false,
    bars: false,
    columns: Columns::Unlimited,
    tame: false,
    commands: false,
};

fn report(look: Look) -> (Report, Buffer, Buffer) {
    let (stdout, stderr) = (Buffer::default(), Buffer::default());
    (Report::new(look, Files::default(), Box::new(stdout.clone()), Box::new(stderr.clone())), stdout, stderr)
}

/// What `events` print: stdout, stderr.
fn printed(look: Look, events: &[Event<'_>]) -> (String, String) {
    let (report, stdout, stderr) = report(look);
    for event in events {
        report.event(event);
    }
    (stdout.text(), stderr.text())
}

fn layer(name: &str, size: u64, uncompressed_size: u64, reused: bool) -> LayerResult {
    LayerResult {
        name: name.into(),
        digest: Digest::of(name.as_bytes()),
        diff_id: DiffId(Digest::of(b"")),
        size,
        uncompressed_size,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        reused,
    }
}

fn image() -> ImageResult {
    ImageResult {
        schema: 1,
        package: "shop".into(),
        bin: "thumbnailer".into(),
        digest: Digest::of(b"image"),
        image_uri: None,
        tags: vec![],
        platform: "linux/amd64".into(),
        size: 550 << 20,
        uncompressed_size: 700 << 20,
        layers: vec![
            layer("base", 10 << 20, 30 << 20, true),
            layer("base", 20 << 20, 40 << 20, true),
            layer("a-model-of-a-long-name", 500 << 20, 600 << 20, false),
            layer("thumbnailer", 20 << 20, 30 << 20, false),
        ],
        functions: vec![],
        sent_bytes: None,
        reused_bytes: None,
    }
}

/// A run with everything in it, whose lines name no time that is measured.
fn run<'a>(image: &'a ImageResult, path: &'a Path) -> Vec<Event<'a>> {
    let started = |id, kind, name, total_bytes| Event::TaskStarted { task: TaskId(id), kind, name, total_bytes };
    let finished = |id, outcome| Event::TaskFinished { task: TaskId(id), outcome };
    vec![
        Event::BaseResolving { reference: "public.ecr.aws/lambda/provided:al2023" },
        Event::BaseResolved {
            package: "shop",
            bin: "thumbnailer",
            reference: "a:b",
            digest: Some(Digest::of(b"base")),
            platform: "linux/amd64",
        },
        Event::LayersStarted { bin: "thumbnailer", count: 2 },
        started(0, TaskKind::Layer, "models", Some(600 << 20)),
        started(1, TaskKind::Layer, "thumbnailer", Some(1000)),
        Event::TaskAdvanced { task: TaskId(0), bytes: 300 << 20 },
        Event::Retrying { what: "blob sha256:1234", why: "connection\x1b[2Jreset", delay: Duration::from_millis(1500) },
        Event::Waiting { what: "another build of this project" },
        Event::Warning { message: "unused key `basee`", help: Some("did you mean `base`?") },
        Event::Detail { message: "glibc 2.34" },
        finished(1, TaskOutcome::Done),
        finished(0, TaskOutcome::Reused),
        Event::Wrote { package: "shop", bin: "thumbnailer", what: "oci-archive", path },
        Event::ImageBuilt { image },
        Event::Finished { elapsed: Duration::from_millis(61_000) },
    ]
}

#[test]
fn a_run_talks_on_stderr_and_gives_digests_on_stdout() {
    let image = image();
    let (stdout, stderr) = printed(PLAIN, &run(&image, Path::new("out.tar")));
    assert_eq!(stdout, "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d\n");
    assert_eq!(
        stderr,
        "   Resolving public.ecr.aws/lambda/provided:al2023
    Layering thumbnailer: 2 layers
    Layering models (600.0 MiB)
    Retrying blob sha256:1234 in 1.50s: connection\\u{1b}[2Jreset
     Waiting for another build of this project
warning: unused key `basee`
help: did you mean `base`?
       Wrote oci-archive out.tar
       Built thumbnailer for linux/amd64
             layer                        size  compressed          digest
             base                     70.0 MiB    30.0 MiB  reused  2 layers
             a-model-of-a-long-name  600.0 MiB   500.0 MiB  new     c3bdefe9f071
             thumbnailer              30.0 MiB    20.0 MiB  new     1663afd1416d
             total                   700.0 MiB   550.0 MiB
    Finished 1 image in 1m 01s
"
    );
}

#[test]
fn quiet_leaves_the_data_and_verbose_adds_details() {
    let image = image();
    let events = run(&image, Path::new("out.tar"));
    let (stdout, stderr) = printed(Look { quiet: true, ..PLAIN }, &events);
    assert_eq!((stdout.lines().count(), stderr.as_str()), (1, ""));

    let (_, stderr) = printed(Look { verbose: true, ..PLAIN }, &events);
    for line in [
        "    Resolved a:b for linux/amd64: sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2\n",
        "    Layering thumbnailer (1000 B)\n",
        "     Layered thumbnailer, 1000 B in 0.00s\n",
        "       Fresh models\n",
        "      Detail glibc 2.34\n",
    ] {
        assert!(stderr.contains(line), "{line:?} is missing in\n{stderr}");
    }
    assert_eq!(stderr.matches("             base ").count(), 2, "verbose shows each layer");
}

#[test]
fn without_colour_nothing_steers_the_terminal() {
    let image = image();
    let events = run(&image, Path::new("o\x1bt.tar"));
    let (stdout, stderr) = printed(Look { verbose: true, ..PLAIN }, &events);
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "{stderr}");
    let (_, coloured) = printed(Look { color: true, ..PLAIN }, &events[..1]);
    assert_eq!(coloured, "\x1b[1m\x1b[92m   Resolving\x1b[0m public.ecr.aws/lambda/provided:al2023\n");
}

#[test]
fn the_table_fits_every_width() {
    let image = image();
    for columns in 20..140 {
        let table = table::built(&image, Some(columns), false);
        let widest = table.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(usize::from(columns)), "{columns} columns:\n{table}");
    }
    let narrow = [
        " layer                  size",
        " base               70.0 MiB  reused",
        " a-model-of-a-lo…  600.0 MiB  new",
        " thumbnailer        30.0 MiB  new",
        " total             700.0 MiB",
    ];
    assert_eq!(table::built(&image, Some(36), false).lines().collect::<Vec<_>>(), narrow);
}

/// The lines a terminal shows after `bytes`, for the few sequences bars use.
fn shown(bytes: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0_usize, 0_usize);
    let mut characters = bytes.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => (row, column) = (row + 1, 0),
            '\r' => column = 0,
            '\x1b' => {
                assert_eq!(characters.next(), Some('['));
                let mut count = String::new();
                while characters.peek().is_some_and(char::is_ascii_digit) {
                    count.extend(characters.next());
                }
                let count: usize = count.parse().expect("the sequences of bars have a count");
                match characters.next() {
                    Some('A') => row -= count,
                    Some('B') => row += count,
                    Some('K') => lines[row].clear(),
                    Some('m') => {}
                    other => panic!("an unknown sequence: {other:?}"),
                }
            }
            character => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
                lines.resize(lines.len().max(row + 1), Vec::new());
                let line: &mut Vec<char> = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = character;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
}

#[test]
fn bars_never_wrap_and_leave_nothing_behind() {
    for (columns, color) in [8, 20, 24, 30, 60, 75, 109, 110, 200].into_iter().flat_map(|it| [(it, false), (it, true)])
    {
        let (report, _, stderr) = report(Look { bars: true, color, columns: Columns::Fixed(columns), ..PLAIN });
        let session = Session::new(Box::new(report.clone()));
        let known = session.task(TaskKind::Layer, "a-model-of-a-long-name-that-goes-on", Some(4 << 20));
        let unknown = session.task(TaskKind::Pull, "base", None);
        known.advance(1 << 20);
        unknown.advance(1 << 20);
        session.warn("a line", None);
        let during = shown(&stderr.text(), usize::from(columns));
        let lines: Vec<_> = during.iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 2 + "warning: a line".len().div_ceil(usize::from(columns)), "{columns}: {during:#?}");
        drop((known, unknown));
        let text = stderr.text();
        let after = |text: &str| shown(text, usize::from(columns)).concat().replace(' ', "");
        assert_eq!(after(&text), "warning:aline", "{columns}");
        // What a terminal echoes gets in wherever it is not written to.
        for end in stderr.ends() {
            let interrupted = format!("{}^C{}", &text[..end], &text[end..]);
            assert_eq!(after(&interrupted).replace("^C", ""), "warning:aline", "{columns}: {interrupted:?}");
        }
    }
}

#[test]
fn a_bar_tells_what_fits() {
    let bar = |columns, color| {
        let (report, _, stderr) = report(Look { bars: true, color, columns: Columns::Fixed(columns), ..PLAIN });
        let session = Session::new(Box::new(report.clone()));
        let task = session.task(TaskKind::Hash, "database.sqlite3", Some(4 << 20));
        task.advance(1 << 20);
        // A line printed above makes the bar draw itself again.
        session.warn("x", None);
        shown(&stderr.text(), columns.into()).pop().expect("the bar's line")
    };
    for color in [false, true] {
        assert_eq!(bar(40, color), "     Hashing database.sqlite3        25%");
        assert_eq!(bar(24, color), "     Hashing databa  25%");
        assert_eq!(bar(20, color), " 25% database.sqlite");
        for (columns, middle) in [
            (80, "     Hashing database.sqlite3            [==>       ]  25% "),
            (
                120,
                "     Hashing database.sqlite3                         [=====>              ]    1.0 MiB of 4.0 MiB ",
            ),
        ] {
            let wide = bar(columns, color);
            assert!(wide.starts_with(middle) && wide.contains("/s ") && wide.ends_with(" left"), "{wide:?}");
        }
    }
}

#[test]
fn a_push_of_several_layers_has_a_bar_above_theirs() {
    const MIB: u64 = 1 << 20;
    let (report, _, stderr) = report(Look { bars: true, columns: Columns::Fixed(60), ..PLAIN });
    let session = Session::new(Box::new(report.clone()));
    let planned = |name: &str, step, mib: u64| PlannedLayer {
        name: name.to_owned(),
        digest: None,
        step,
        size: mib * MIB,
        at_most: step == PushStep::Upload,
    };
    let plan = PushPlan {
        repository: "h/r".into(),
        creates_repository: false,
        digest: None,
        tags: Vec::new(),
        layers: vec![
            planned("old", PushStep::Reuse, 50),
            planned("base", PushStep::Mount, 40),
            planned("model", PushStep::Upload, 100),
            planned("data", PushStep::Upload, 60),
        ],
        reused_bytes: 50 * MIB,
        mounted_bytes: 40 * MIB,
        relayed_bytes: 0,
        uploaded_bytes: 160 * MIB,
        at_most: true,
    };
    session.emit(&Event::PushPlanned { package: "p", bin: "hello", plan: &plan, dry_run: false });
    let pushed = |name: &str, step, mib: u64| {
        let layer = PushedLayer { name: name.into(), digest: Digest::of(b"x"), size: mib * MIB, step };
        session.emit(&Event::LayerPushed { package: "p", bin: "hello", layer: &layer });
    };
    let bars = || {
        session.warn("x", None);
        let lines = shown(&stderr.text(), 60).into_iter().rev().take_while(|line| !line.starts_with("warning"));
        let words = |line: String| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            words[1..3].join(" ")
        };
        lines.filter(|line| !line.is_empty()).map(words).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>()
    };
    assert_eq!(bars(), ["hello 0%"]);
    let model = session.task(TaskKind::Push, "model", Some(100 * MIB));
    model.advance(50 * MIB);
    assert_eq!(bars(), ["hello 25%", "model 50%"], "50 of 200 that may have to move");
    pushed("old", PushStep::Reuse, 50);
    pushed("base", PushStep::Mount, 40);
    assert_eq!(bars(), ["hello 31%", "model 50%"], "what is lent does not move");
    drop(model);
    assert_eq!(bars(), ["hello 0%"], "what was cut begins anew");
    let data = session.task(TaskKind::Push, "data", Some(60 * MIB));
    data.advance(20 * MIB);
    data.finish(TaskOutcome::Done);
    assert!(stderr.text().contains("Pushed data, 20.0 MiB in "), "what was sent, not what might have been");
    pushed("data", PushStep::Upload, 20);
    assert_eq!(bars(), ["hello 17%"], "20 of 120, since it was at most 60 and is 20");
    let model = session.task(TaskKind::Push, "model", Some(100 * MIB));
    model.advance(100 * MIB);
    model.finish(TaskOutcome::Done);
    pushed("model", PushStep::Upload, 100);
    assert_eq!(bars(), [""; 0], "all is there");
}

#[test]
fn a_bar_guesses_nothing_before_the_first_bytes() {
    for columns in [60, 80, 120] {
        let (report, _, stderr) = report(Look { bars: true, columns: Columns::Fixed(columns), ..PLAIN });
        let session = Session::new(Box::new(report.clone()));
        let _task = session.task(TaskKind::Hash, "database.sqlite3", Some(4 << 20));
        let bar = shown(&stderr.text(), columns.into()).pop().expect("the bar's line");
        assert!(!bar.contains("/s") && !bar.contains("left"), "{bar:?}");
    }
}

#[test]
fn errors_are_told_as_cargo_does() {
    let problem = Problem::usage("no such asset `a`").help("create it").because(io::Error::other("gone\nfor good"));
    let (report, stdout, stderr) = report(Look { quiet: true, ..PLAIN });
    let _ = report.conclude(Err(problem));
    let one = "error: no such asset `a`\n\nCaused by:\n  gone\n  for good\n\nhelp: create it\n";
    assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("", one));

    let problem = Problem::usage("no such asset `a`").because(io::Error::other("gone\nfor good"));
    let (report, _, stderr) = self::report(PLAIN);
    let _ = report.conclude(Err(problem.context("could not pack layer `a`")));
    let two = "error: could not pack layer `a`\n\nCaused by:\n  0: no such asset `a`\n  1: gone\n     for good\n";
    assert_eq!(stderr.text(), two);
}

#[test]
fn json_is_an_object_a_line_and_cargos_messages_as_they_are() {
    let image = image();
    let small = ImageResult { layers: image.layers[..1].to_vec(), ..image.clone() };
    let (report, stdout, _) = report(Look { format: Format::Json, quiet: true, ..PLAIN });
    for event in [
        Event::CargoMessage { line: "{\"reason\":\"build-finished\", \"success\":true}\n" },
        Event::BaseResolved {
            package: "shop",
            bin: "thumbnailer",
            reference: "scratch",
            digest: None,
            platform: "linux/arm64",
        },
        Event::Warning { message: "a \"b\"", help: None },
        Event::ImageBuilt { image: &small },
        Event::Wrote { package: "shop", bin: "thumbnailer", what: "oci-archive", path: Path::new("out.tar") },
        Event::Detail { message: "not data" },
    ] {
        report.event(&event);
    }
    let _ = report.conclude(Err(Problem::refused("no").help("do")));
    let base = "{\"name\":\"base\",\"digest\":\"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2\",\
                \"diff_id\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":10485760,\
                \"uncompressed_size\":31457280,\"media_type\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"reused\":true}";
    let expected = [
        "{\"reason\":\"build-finished\", \"success\":true}".to_owned(),
        "{\"reason\":\"base-resolved\",\"package\":\"shop\",\"bin\":\"thumbnailer\",\"reference\":\"scratch\",\
         \"digest\":null,\"platform\":\"linux/arm64\"}"
            .to_owned(),
        "{\"reason\":\"warning\",\"message\":\"a \\\"b\\\"\",\"help\":null}".to_owned(),
        format!(
            "{{\"reason\":\"image-built\",\"schema\":1,\"package\":\"shop\",\"bin\":\"thumbnailer\",\
             \"digest\":\"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d\",\"image_uri\":null,\
             \"tags\":[],\"platform\":\"linux/amd64\",\"size\":576716800,\"uncompressed_size\":734003200,\
             \"layers\":[{base}],\"functions\":[]}}"
        ),
        "{\"reason\":\"wrote\",\"package\":\"shop\",\"bin\":\"thumbnailer\",\"what\":\"oci-archive\",\"path\":\"out.tar\"}".to_owned(),
        "{\"reason\":\"error\",\"message\":\"no\",\"causes\":[],\"help\":\"do\",\"code\":3}".to_owned(),
        "{\"reason\":\"finished\",\"success\":false}".to_owned(),
    ];
    assert_eq!(stdout.text().lines().collect::<Vec<_>>(), expected);
}

/// A stdout that fails in one way.
struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_left_is_no_failure_but_a_full_disk_is() {
    for (kind, stderr_text) in [
        (io::ErrorKind::BrokenPipe, ""),
        (
            io::ErrorKind::StorageFull,
            "error: could not write to standard output\n\nCaused by:\n  no storage space\n\nhelp: the work is done, only what \
             it prints is lost: send that where there is room, and run the command again\n",
        ),
    ] {
        let stderr = Buffer::default();
        let report = Report::new(
            Look { quiet: true, ..PLAIN },
            Files::default(),
            Box::new(Failing(kind)),
            Box::new(stderr.clone()),
        );
        report.event(&Event::ImageBuilt { image: &image() });
        report.event(&Event::ImageBuilt { image: &image() });
        let _ = report.conclude(Ok(()));
        assert_eq!(stderr.text(), stderr_text);
    }
}

#[test]
fn what_became_of_the_lock_is_talk_and_a_dry_runs_answer() {
    let (path, few) =
        (Path::new("p/lambda-image.lock"), [format!("layer `/a`: is added: {}, a -> b", Digest::of(b"few"))]);
    let many = ["1", "2", "3", "4", "5"].map(str::to_owned);
    let locked = |changes, dry_run| Event::Locked { path, changes, dry_run };
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let compared = |newest| Event::BaseCompared { reference: "a:1", platform: "linux/arm64", locked: old, newest };
    for (event, stdout, stderr) in [
        (locked(&few, false), String::new(), "     Locking layer `/a`: is added: fa95e5080882, a -> b\n"),
        (locked(&many, false), String::new(), "     Locking 5 changes in p/lambda-image.lock\n"),
        (locked(&few, true), format!("{}\n", few[0]), ""),
        (compared(old), String::new(), "     Current a:1 for linux/arm64\n"),
        (compared(new), format!("a:1 linux/arm64 {old} -> {new}\n"), ""),
    ] {
        assert_eq!(printed(PLAIN, std::slice::from_ref(&event)), (stdout, stderr.to_owned()), "{event:?}");
    }
    let json = Look { format: Format::Json, ..PLAIN };
    let (stdout, _) = printed(json, &[locked(&few, true), compared(new)]);
    let expected = format!(
        "{}\n{}\n",
        format_args!(r#"{{"reason":"locked","path":"p/lambda-image.lock","changes":["{}"],"dry_run":true}}"#, few[0]),
        format_args!(
            r#"{{"reason":"base-compared","reference":"a:1","platform":"linux/arm64","locked":"{old}","newest":"{new}","outdated":true}}"#
        ),
    );
    assert_eq!(stdout, expected);
}
