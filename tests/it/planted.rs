//! The table of planted bugs tells the truth. That each is found is shown by the example of the same name.

use std::{collections::BTreeSet, fs, path::Path};

use belay_tests::planted_bugs;

/// Every bug that is planted is in the table with its file, nothing else is, and the test that is to find it is there.
#[test]
fn every_planted_bug_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut planted = Vec::new();
    for folder in ["server/src", "agent/src"] {
        sources(&root.join(folder), &mut |path, text| {
            let file = path.strip_prefix(root).expect("in the workspace").display().to_string();
            let names = text.split("planted(\"").skip(1).filter_map(|rest| rest.split('"').next());
            planted.extend(names.map(|name| (name.to_owned(), file.clone())));
        });
    }
    let bugs = planted_bugs();
    let listed: BTreeSet<_> = bugs.iter().map(|bug| (bug.name.clone(), bug.file.clone())).collect();
    assert_eq!(listed, planted.iter().cloned().collect(), "the table, and what is in the sources");
    assert_eq!((listed.len(), listed.len()), (planted.len(), bugs.len()), "a name is there twice");
    assert!(bugs.len() >= 25, "{} are too few", bugs.len());
    for bug in bugs {
        let name = bug.test.rsplit("::").next().expect("a name");
        let mut found = false;
        sources(&root.join(bug.suite.folder()), &mut |_, text| {
            found |= text.contains(&format!("fn {name}("));
        });
        assert!(found, "{}: there is no test `{}`", bug.name, bug.test);
    }
}

fn sources(folder: &Path, see: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, see);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            see(&path, &fs::read_to_string(&path).expect("a source"));
        }
    }
}
