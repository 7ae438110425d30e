//! The code blocks of a page of documentation, by the section they stand in.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A block of code.
#[derive(Debug, Clone)]
pub struct Block {
    /// The last heading of the second level before it; empty before the first.
    pub section: String,
    /// What stands behind the opening fence: `sh` is run, `text` is looked at.
    pub language: String,
    /// Its lines.
    pub text: String,
}

/// The README, and every page in `docs`, relative to the repository.
pub fn pages() -> Vec<PathBuf> {
    let listed =
        fs::read_dir(repository().join("docs")).expect("pages").map(|entry| entry.expect("a page").file_name());
    let pages = listed.map(|name| Path::new("docs").join(name));
    let mut pages: Vec<_> = pages.filter(|page| page.extension().is_some_and(|it| it == "md")).collect();
    pages.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from));
    pages.sort();
    pages
}

pub fn read(page: impl AsRef<Path>) -> String {
    let path = repository().join(page);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All blocks of a page, in order.
pub fn blocks(page: impl AsRef<Path>) -> Vec<Block> {
    let (mut blocks, mut section, mut open) = (Vec::new(), String::new(), None::<Block>);
    for line in read(page).lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let language = language.to_owned();
                open = Some(Block { section: section.clone(), language, text: String::new() });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{line}\n"),
            (None, None) => {
                if let Some(heading) = line.strip_prefix("## ") {
                    heading.clone_into(&mut section);
                }
            }
        }
    }
    assert!(open.is_none(), "a block of code has no end");
    blocks
}

/// The commands that a section tells its readers to paste.
pub fn commands(page: impl AsRef<Path>, section: &str) -> Vec<String> {
    let found = blocks(page).into_iter().filter(|block| block.section == section && block.language == "sh");
    found.map(|block| block.text.trim_end().to_owned()).collect()
}
