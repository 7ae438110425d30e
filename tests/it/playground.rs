use crate::support::cloud::Cloud;
use crate::support::shell::Shell;

#[test]
#[ignore]
fn playground() {
    let cloud = Cloud::start(&["words", "thumbnailer", "shop/thumbnailer"]);
    let shell = Shell::in_cloud(&cloud);
    println!("{}", shell.run(&std::env::var("PLAYGROUND").expect("a script")));
}
