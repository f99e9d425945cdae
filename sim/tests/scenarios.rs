//! Every story under `scenarios/` holds, with the seed that its file names and with others.

#![allow(clippy::disallowed_methods, reason = "reads scenario files")]
#![allow(clippy::print_stderr, reason = "what fails has to be seen")]

use std::{fs, path::Path, time::Duration};

use gracchus_sim::{run, told};
use gracchus_workload::scenario::Expectation;

#[test]
fn all_scenarios_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut told = 0;
    for folder in fs::read_dir(root).expect("there are scenarios").flatten() {
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let text = fs::read_to_string(file.path()).expect("can be read");
            let plan =
                told::read(&text, None).unwrap_or_else(|why| panic!("{}: {why}", file.path().display()));
            let scenario = &plan.scenario;
            assert_eq!(Some(scenario.name.as_str()), file.path().file_stem().and_then(|stem| stem.to_str()));
            if scenario.expect == Expectation::Holds {
                let report = run::run(plan, Duration::from_secs(120));
                // What panics from here on is kept by the simulator and not printed.
                if !report.held() || report.acknowledged <= 100 {
                    eprintln!(
                        "{}\n{}",
                        file.path().display(),
                        report.verdict("cargo sim run, with this file")
                    );
                }
                assert!(report.held(), "{}", file.path().display());
                assert!(report.acknowledged > 100, "{}", file.path().display());
                told += 1;
            }
        }
    }
    assert!(told >= 8, "{told}");
}
