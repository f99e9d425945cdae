//! kcat, where it is installed: it comes with no language's packages, so its absence is said (and a failure where everything
//! is required).

use std::{
    io::Write,
    process::{Command, Stdio},
};

use gracchus_tests::toolchain;

use crate::{Bench, CODECS, Row, brief};

const LINES: &str = "k1|one\nk2|two with spaces\nk3|three\n|no key\n";

/// Its row of the table.
pub(crate) fn row(bench: &Bench) -> Option<Row> {
    toolchain::find("kcat", "the compatibility of kcat")?;
    let said = kcat(&["-V"], "").expect("kcat names its version");
    let version = said.lines().find_map(|line| line.strip_prefix("Version ")).unwrap_or_default();
    let version =
        version.replace(" (JSON", "").split(", ").find(|part| part.contains("librdkafka")).map_or_else(
            || brief(version),
            |library| {
                let own = version.split(' ').next().unwrap_or_default();
                let library =
                    library.split(' ').skip_while(|word| *word != "librdkafka").nth(1).unwrap_or_default();
                format!("{own} (librdkafka {library})")
            },
        );
    let results = vec![lists(bench), writes(bench), reads(bench), reads(bench).map(|_| CODECS.join(", "))];
    Some(Row { name: "kcat", client: "kcat (C)".into(), version, results })
}

fn topic(codec: &str) -> String {
    format!("kcat-{codec}")
}

fn lists(bench: &Bench) -> Result<String, String> {
    let listed = kcat(&["-b", &bench.broker.bootstrap(), "-L"], "")?;
    if listed.contains(" 1 brokers:") {
        Ok("lists".into())
    } else {
        Err(format!("kcat -L printed\n{listed}"))
    }
}

fn writes(bench: &Bench) -> Result<String, String> {
    for codec in CODECS {
        bench.broker.connect().create_topic(&topic(codec), 1, &[]).map_err(|error| error.to_string())?;
        let codec = [codec, &topic(codec)];
        let bootstrap = bench.broker.bootstrap();
        kcat(&["-P", "-b", &bootstrap, "-t", codec[1], "-p", "0", "-z", codec[0], "-K", "|"], LINES)?;
    }
    Ok("yes".into())
}

fn reads(bench: &Bench) -> Result<String, String> {
    for codec in CODECS {
        let bootstrap = bench.broker.bootstrap();
        let topic = topic(codec);
        let arguments =
            ["-C", "-q", "-b", &bootstrap, "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-f", "%k|%s\n"];
        let back = kcat(&arguments, "")?;
        if back != LINES {
            return Err(format!("{topic} holds\n{back}"));
        }
    }
    Ok("yes".into())
}

fn kcat(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new("kcat");
    // Cargo points it at the librdkafka of the Rust crate.
    command.env_remove("LD_LIBRARY_PATH");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    child.stdin.take().expect("piped").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let err = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("kcat {} failed: {err}", arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
