//! The closing table of an image's layers.

use crate::event::{ImageResult, LayerResult};
use crate::units;

/// The columns before a row, where there is room: those of a status line's verb.
const INDENT: usize = 13;
/// Where the terminal is narrower than this, rows start further left.
const ROOMY_COLUMNS: usize = 80;
/// The columns a name gets before a less important column is dropped.
const MIN_NAME: usize = 12;
const GAP: usize = 2;

struct Row {
    cells: [String; 5],
}

/// The table, in lines of at most `columns`; layers of one name, such as the base's, share a row unless `verbose`.
pub(super) fn render(image: &ImageResult, columns: Option<u16>, verbose: bool) -> String {
    let rows = rows(image, verbose);
    let columns = columns.map_or(usize::MAX, usize::from);
    let indent = if columns < ROOMY_COLUMNS { 1 } else { INDENT };
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let shown = shown(&widths, columns.saturating_sub(indent));
    let others: usize = shown.iter().skip(1).map(|&column| widths[column] + GAP).sum();
    widths[0] = widths[0].min(columns.saturating_sub(indent + others)).max(1);

    let mut text = String::new();
    for row in &rows {
        let mut line = " ".repeat(indent);
        for (position, &column) in shown.iter().enumerate() {
            if position > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = cut(&row.cells[column], widths[column]);
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

fn rows(image: &ImageResult, verbose: bool) -> Vec<Row> {
    let header = ["layer", "size", "compressed", "", "digest"].map(str::to_owned);
    let mut rows = vec![Row { cells: header }];
    let alike = |one: &LayerResult, next: &LayerResult| !verbose && one.name == next.name && one.reused == next.reused;
    rows.extend(image.layers.chunk_by(alike).map(row));
    let total = [
        "total".to_owned(),
        units::size(image.uncompressed_size),
        units::size(image.size),
        String::new(),
        String::new(),
    ];
    rows.push(Row { cells: total });
    rows
}

fn row(layers: &[LayerResult]) -> Row {
    let (name, digest) = match layers {
        [layer] => (super::human::one_line(&layer.name), layer.digest.short()),
        layers => (super::human::one_line(&layers[0].name), format!("{} layers", layers.len())),
    };
    let size = layers.iter().map(|layer| layer.uncompressed_size).sum();
    let compressed = layers.iter().map(|layer| layer.size).sum();
    let state = if layers[0].reused { "reused" } else { "new" };
    Row { cells: [name, units::size(size), units::size(compressed), state.to_owned(), digest] }
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
