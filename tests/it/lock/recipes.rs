//! Layers that are made otherwise than they were locked.

use super::{CONFIG, build, lock, project, refused};

#[test]
fn a_locked_build_says_what_changed_about_how_a_layer_is_made() {
    let project = project();
    build(&project).succeed();
    let files = project.layout_files();
    let models = |key: &str| CONFIG.replace("path = \"models\"", &format!("path = \"models\", {key}"));
    project.write("others/a", "a");
    project.write("others/b", "b");
    for (config, flags, expected) in [
        (models("exclude = [\"b\"]"), &[][..], "layer `/var/task/models`: its `exclude` changed\n"),
        (models("follow-symlinks = true"), &[], "layer `/var/task/models`: its `follow-symlinks` changed\n"),
        (
            CONFIG.to_owned(),
            &["--compression-level", "9"],
            "layer `/var/task/models` (of `models` at level 9): is added\n  layer `/var/task/x.db` (of `x.db` at level \
             9): is added\n",
        ),
        (
            format!("compression-level = 9\n{CONFIG}"),
            &[],
            "layer `/var/task/models`: its compression level changed, 2 -> 9\n  layer `/var/task/x.db`: its \
             compression level changed, 2 -> 9\n",
        ),
        (
            CONFIG.replace("path = \"models\"", "path = \"others\", to = \"models\""),
            &[],
            "layer `/var/task/models`: its path changed, `models` -> `others`\n",
        ),
    ] {
        project.write("lambda-image.toml", &config);
        let outcome = build(&project).arg("--locked").args(flags).run();
        refused(&outcome, 1, &[&format!("forbids it\n\nCaused by:\n  {expected}\nhelp: run without `--locked`")]);
    }
    assert_eq!(project.layout_files(), files);
    project.write("lambda-image.toml", models("exclude = [\"b\"]"));
    let outcome = build(&project).run();
    let expected = "     Locking layer `/var/task/models`: its `exclude` changed\n";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert_eq!(lock(&project).layers.len(), 2);
}
