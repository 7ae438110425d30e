//! Who may read what is written: whom the umask lets, as it is with files of cargo's.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::project::{AMD64, Project};

/// Permissions of everything below `directory`, but for what is the program's own.
fn modes_below(directory: &Path) -> BTreeMap<String, u32> {
    let mut modes = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("listed") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("there");
            let below = path.strip_prefix(directory).expect("below").display().to_string();
            if metadata.is_dir() && !below.ends_with("/tmp") {
                open.push(path);
            }
            modes.insert(below, metadata.permissions().mode() & 0o7777);
        }
    }
    modes
}

#[test]
fn what_is_written_may_be_read_by_whom_the_umask_lets() {
    for umask in [0o002, 0o027, 0o077] {
        let project = Project::new(&[("lambda-image.toml", "base = \"scratch\"\n"), ("data/x", "x")]);
        project.write_program("app", AMD64);
        let before = modes_below(project.root());
        for output in ["oci-dir:new/layout", "oci-archive:new/oci.tar", "docker-archive:new/docker.tar"] {
            let build = project.build().args(["--binary-path", "app", "--asset", "data", "--output", output]);
            let build = build.args(["--output-env", "result.env"]);
            build.under("sh", ["-c", &format!("umask {umask:03o}; exec \"$@\""), "sh"]).succeed();
        }
        let wrong: Vec<_> = modes_below(project.root())
            .into_iter()
            .filter(|(path, _)| !before.contains_key(path))
            .filter(|(path, mode)| {
                let all = if project.path(path).is_dir() { 0o777 } else { 0o666 };
                *mode != all & !umask
            })
            .map(|(path, mode)| format!("{path} {mode:03o}"))
            .collect();
        assert_eq!(wrong, [""; 0], "umask {umask:03o}");
    }
    // A file that is there keeps the permissions that somebody gave it.
    let project = Project::new(&[("lambda-image.toml", "base = \"scratch\"\n"), ("data/x", "x"), ("out.tar", "old")]);
    fs::set_permissions(project.path("out.tar"), Permissions::from_mode(0o640)).expect("set");
    let build = project.build().args(["--no-binary", "--entrypoint", "/x", "--asset", "data"]);
    build.args(["--output", "oci-archive:out.tar"]).succeed();
    assert_eq!(modes_below(project.root())["out.tar"], 0o640);
}
