//! The closing table of an image's layers, of a build, a push, or a push that is only planned.

use crate::event::{ImageResult, LayerResult, PlannedTag, PushPlan, PushResult, PushStep, TagStep};
use crate::oci::Digest;
use crate::units;

/// The columns before a row, where there is room: those of a status line's verb.
const INDENT: usize = 13;
/// Where the terminal is narrower than this, rows start further left.
const ROOMY_COLUMNS: usize = 80;
/// The columns a name gets before a less important column is dropped.
const MIN_NAME: usize = 12;
const GAP: usize = 2;

/// Name, size, compressed size, what became of it, digest. A column that is empty throughout is left out.
type Row = [String; 5];

/// The layers of a build, in lines of at most `columns`; layers of one name, such as the base's, share a row unless
/// `verbose`.
pub(super) fn built(image: &ImageResult, columns: Option<u16>, verbose: bool) -> String {
    let mut rows = vec![["layer", "size", "compressed", "", "digest"].map(str::to_owned)];
    let state = |layer: &LayerResult| if layer.reused { "reused" } else { "new" };
    let layers: Vec<_> = image.layers.iter().map(|layer| (layer, state(layer))).collect();
    rows.extend(layer_rows(&layers, verbose));
    rows.push(total(units::size(image.uncompressed_size), units::size(image.size)));
    render(&rows, columns, INDENT)
}

/// The layers of a push.
pub(super) fn pushed(image: &ImageResult, push: &PushResult, columns: Option<u16>, verbose: bool) -> String {
    let mut rows = vec![["layer", "size", "compressed", "", "digest"].map(str::to_owned)];
    let steps = push.layers.iter().map(|layer| done(layer.step));
    let layers: Vec<_> = image.layers.iter().zip(steps).collect();
    rows.extend(layer_rows(&layers, verbose));
    rows.push(total(units::size(image.uncompressed_size), units::size(image.size)));
    render(&rows, columns, INDENT)
}

/// What a push of the image `bin` would do, as data: never cut.
pub(super) fn planned(bin: &str, plan: &PushPlan) -> String {
    let mut rows = vec![["layer", "", "bytes", "step", "digest"].map(str::to_owned)];
    let bytes = |bytes: u64, at_most: bool| if at_most { format!("at most {bytes}") } else { bytes.to_string() };
    rows.extend(plan.layers.iter().map(|layer| {
        let digest = layer.digest.map_or_else(|| "not known yet".to_owned(), |digest| digest.to_string());
        let name = super::text::one_line(&layer.name);
        [name, String::new(), bytes(layer.size, layer.at_most), layer.step.to_string(), digest]
    }));
    let created = if plan.creates_repository { ", to be created" } else { "" };
    let mut text = format!("image {} -> {}{created}\n", super::text::one_line(bin), plan.repository);
    text.push_str(&render(&rows, None, 2));
    for (step, count, at_most) in [
        (PushStep::Reuse, plan.reused_bytes, false),
        (PushStep::Mount, plan.mounted_bytes, false),
        (PushStep::Relay, plan.relayed_bytes, false),
        (PushStep::Upload, plan.uploaded_bytes, plan.at_most),
    ] {
        text.push_str(&format!("  {:<6} {}\n", step.to_string(), bytes(count, at_most)));
    }
    let digest = |digest: Option<Digest>, none: &str| digest.map_or_else(|| none.to_owned(), |it| it.to_string());
    for PlannedTag { tag, digest: current, step, immutable } in &plan.tags {
        let becomes = match step {
            TagStep::Stay => format!("{}, stays", digest(*current, "none")),
            TagStep::Create | TagStep::Move => {
                format!("{} -> {}", digest(*current, "none"), digest(plan.digest, "not known yet"))
            }
        };
        let refused = *immutable && *step == TagStep::Move;
        text.push_str(&format!("  tag {tag}  {becomes}{}\n", if refused { ", and cannot be moved" } else { "" }));
    }
    text
}

/// What became of a layer, in a word or two.
pub(super) fn done(step: PushStep) -> &'static str {
    match step {
        PushStep::Reuse => "was there",
        PushStep::Mount => "mounted",
        PushStep::Relay => "relayed",
        PushStep::Upload => "sent",
    }
}

fn total(size: String, compressed: String) -> Row {
    ["total".to_owned(), size, compressed, String::new(), String::new()]
}

fn layer_rows(layers: &[(&LayerResult, &str)], verbose: bool) -> Vec<Row> {
    let alike = |one: &(&LayerResult, &str), next: &(&LayerResult, &str)| {
        !verbose && one.0.name == next.0.name && one.1 == next.1
    };
    layers.chunk_by(alike).map(row).collect()
}

fn row(layers: &[(&LayerResult, &str)]) -> Row {
    let (first, state) = layers[0];
    let digest = match layers {
        [_] => first.digest.short(),
        layers => format!("{} layers", layers.len()),
    };
    let size = layers.iter().map(|(layer, _)| layer.uncompressed_size).sum();
    let compressed = layers.iter().map(|(layer, _)| layer.size).sum();
    [super::text::one_line(&first.name), units::size(size), units::size(compressed), state.to_owned(), digest]
}

/// Rows as lines of at most `columns`.
fn render(rows: &[Row], columns: Option<u16>, indent: usize) -> String {
    let columns = columns.map_or(usize::MAX, usize::from);
    let indent = if columns < ROOMY_COLUMNS { 1 } else { indent };
    let mut widths = [0; 5];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let shown: Vec<usize> =
        shown(&widths, columns.saturating_sub(indent)).iter().copied().filter(|&column| widths[column] > 0).collect();
    let others: usize = shown.iter().skip(1).map(|&column| widths[column] + GAP).sum();
    widths[0] = widths[0].min(columns.saturating_sub(indent + others)).max(1);

    let mut text = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (position, &column) in shown.iter().enumerate() {
            if position > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = cut(&row[column], widths[column]);
            let padding = " ".repeat(widths[column] - cell.chars().count());
            // Numbers are read from their right end.
            let numeric = column == 1 || column == 2;
            line.push_str(&if numeric { padding + &cell } else { cell + &padding });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The columns that fit: the digest goes first, then the compressed size, then whether it is new.
fn shown(widths: &[usize; 5], columns: usize) -> &'static [usize] {
    const CHOICES: [&[usize]; 4] = [&[0, 1, 2, 3, 4], &[0, 1, 2, 3], &[0, 1, 3], &[0, 1]];
    let fits = |choice: &&&[usize]| {
        let others: usize = choice.iter().skip(1).map(|&column| widths[column] + GAP).sum();
        widths[0].min(MIN_NAME) + others <= columns
    };
    CHOICES.iter().find(fits).unwrap_or(&CHOICES[3])
}

/// `text` in at most `width` characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}
