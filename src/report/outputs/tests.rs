//! What outputs and variables say, and how their files are written.

use super::*;
use crate::event::FunctionResult;
use crate::oci::Digest;

fn entry(bin: &str, versions: &[Option<&str>], sent_bytes: Option<u64>) -> Entry {
    let function =
        |version: &Option<&str>| FunctionResult { name: "f".into(), version: version.map(str::to_owned), alias: None };
    let digest = Digest::of(b"image");
    let image = ImageResult {
        schema: 1,
        package: "p".into(),
        bin: bin.into(),
        digest,
        image_uri: None,
        tags: vec![],
        platform: "linux/amd64".into(),
        size: 1,
        uncompressed_size: 2,
        layers: vec![],
        functions: versions.iter().map(function).collect(),
        sent_bytes,
        reused_bytes: sent_bytes.map(|_| 7),
    };
    let push = sent_bytes.map(|sent_bytes| PushResult {
        digest,
        image_uri: format!("h/{bin}@{digest}"),
        tags: vec![],
        layers: vec![],
        sent_bytes,
        reused_bytes: 7,
    });
    Entry { image, push }
}

#[test]
fn one_image_is_told_of_in_full_and_several_by_what_cannot_be_taken_for_another() {
    let digest = Digest::of(b"image");
    let (d, uri) = (digest.to_string(), |bin: &str| format!("h/{bin}@{digest}"));
    let of = |name: &'static str, value: &str| (name, value.to_owned());
    for (images, plans, expected, variables) in [
        (
            vec![entry("a", &[Some("9")], None)],
            &[][..],
            vec![of("digest", &d)],
            // What an earlier push did is no news of a build.
            vec![format!("DIGEST={d}")],
        ),
        (
            vec![entry("a", &[Some("1"), None, Some("2")], Some(5))],
            &[],
            vec![
                of("image-uri", &uri("a")),
                of("digest", &d),
                of("function-version", "1\n2"),
                of("pushed-bytes", "5"),
                of("skipped-bytes", "7"),
            ],
            vec![
                format!("IMAGE_URI={}", uri("a")),
                format!("DIGEST={d}"),
                "FUNCTION_VERSION=1,2".to_owned(),
                "PUSHED_BYTES=5".to_owned(),
                "SKIPPED_BYTES=7".to_owned(),
            ],
        ),
        (
            vec![entry("a", &[], Some(5)), entry("b-c", &[Some("1")], Some(6))],
            &[],
            vec![of("pushed-bytes", "11"), of("skipped-bytes", "14")],
            vec![
                format!("IMAGE_URI_A={}", uri("a")),
                format!("DIGEST_A={d}"),
                "PUSHED_BYTES_A=5".to_owned(),
                "SKIPPED_BYTES_A=7".to_owned(),
                format!("IMAGE_URI_B_C={}", uri("b-c")),
                format!("DIGEST_B_C={d}"),
                "FUNCTION_VERSION_B_C=1".to_owned(),
                "PUSHED_BYTES_B_C=6".to_owned(),
                "SKIPPED_BYTES_B_C=7".to_owned(),
            ],
        ),
        (vec![], &["one", "two"], vec![of("plan", "one\ntwo")], vec![]),
    ] {
        let plans = plans.iter().map(|&plan| plan.to_owned()).collect();
        let ledger = Ledger { images, plans, ..Ledger::default() };
        let outputs = ledger.outputs().expect("outputs");
        let (images, others): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|(name, _)| *name == "images");
        assert_eq!(others, expected);
        let images: BTreeMap<String, ImageResult> = serde_json::from_str(&images[0].1).expect("JSON");
        let given: BTreeMap<_, _> =
            ledger.images.iter().map(|entry| (entry.image.bin.clone(), entry.image.clone())).collect();
        assert_eq!(images, given);
        assert_eq!(dotenv(&ledger).lines().collect::<Vec<_>>(), variables);
    }
}

#[test]
fn a_value_holds_whatever_it_holds() {
    let text = output(&[("plan", "a\nEOF\nimages<<EOF".to_owned()), ("digest", "d".to_owned())]).expect("random");
    let lines: Vec<_> = text.lines().collect();
    let word = lines[0].strip_prefix("plan<<").expect("the first name");
    assert_eq!(lines[1..], ["a", "EOF", "images<<EOF", word, &format!("digest<<{word}"), "d", word]);
    assert_ne!(
        text,
        output(&[("plan", "a\nEOF\nimages<<EOF".to_owned()), ("digest", "d".to_owned())]).expect("random")
    );
}

#[test]
fn what_is_added_begins_a_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("output");
    for (before, after) in [("", "x\n"), ("a=b\n", "a=b\nx\n"), ("a=b", "a=b\nx\n")] {
        fs::write(&path, before).expect("written");
        append(&path, "x\n").expect("added");
        assert_eq!(fs::read_to_string(&path).expect("read"), after);
    }
}

#[test]
fn a_dotenv_file_that_cannot_be_written_is_told_before_any_work() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("folder")).expect("made");
    for wrong in ["folder", "nowhere/file"] {
        let files = Files { dotenv: Some(path(wrong)), ..Files::default() };
        let problem = files.check().expect_err(wrong);
        assert_eq!(problem.message(), format!("could not write `{}`", path(wrong).display()));
    }
}
