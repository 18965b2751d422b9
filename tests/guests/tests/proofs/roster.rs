//! A hostile act, or a guest, that no test speaks of proves nothing.

use sandwire_harness::repository;

fn sources() -> String {
    let folder = repository().join("tests/guests/tests/proofs");
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "roster.rs" {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    all
}

#[test]
fn every_act_has_a_test() {
    let tests = sources();
    let acts: Vec<&str> = sandwire_guest_hostile::acts().into_iter().map(|(name, _)| name).collect();
    assert!(acts.len() > 40);
    let unproven: Vec<&&str> = acts.iter().filter(|act| !tests.contains(&format!("\"{act}\""))).collect();
    assert!(unproven.is_empty(), "no test runs these acts: {unproven:?}");
}

#[test]
fn every_guest_has_a_test() {
    let tests = sources();
    let mut found = 0;
    for entry in std::fs::read_dir(repository().join("tests/guests")).unwrap() {
        let path = entry.unwrap().path();
        if !path.join("Cargo.toml").is_file() {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found += 1;
        let used = [format!("Bench::new(\"{name}\""), format!("component(\"{name}\")")];
        assert!(used.iter().any(|call| tests.contains(call.as_str())), "no test uses the guest {name:?}");
    }
    assert!(found >= 3);
}
