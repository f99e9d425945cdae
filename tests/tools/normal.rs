//! Makes equal what must differ between two clusters: ids, addresses, places and moments. Nothing else.

use gracchus_tests::tools::Ran;
use regex_lite::Regex;

/// Where one of the brokers is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) data: String,
    pub(crate) files: String,
}

/// What may precede an id; without that, any word of 22 letters would look like one.
const BEFORE_ID: &str = r"(?i)((?:topic|cluster|directory) ?-?id:?\s+|: )";

/// The outputs with everything made equal that is bound to differ.
pub(crate) fn normal(ran: Ran, place: &Place, figures: bool) -> Ran {
    let text = |text: &str| {
        let mut text = text.replace(&place.data, "DATA").replace(&place.files, "FILES");
        text = text.replace(&place.address, "ADDRESS");
        let (host, port) = place.address.split_once(':').expect("host and port");
        text = text.replace(&format!("{host}, port={port}"), "ADDRESS");
        // `localhost:0`-like forms of the same address: "127.0.0.1    19092".
        text = replace(&text, &format!(r"{host}(\s+){port}\b"), "ADDRESS");
        text = replace(&text, &format!(r"{BEFORE_ID}[A-Za-z0-9_-]{{22}}\b"), "${1}ID");
        text = replace(&text, r"\bEpoch: \d+", "Epoch: TIME");
        text = replace(&text, r"\b1[6-9]\d{11}\b", "TIME");
        text = replace(&text, r#""avg_throughput":[0-9.E-]+"#, "\"avg_throughput\":N");
        // Where in a tool's own code an exception was made is the tool's business.
        text = replace(&text, r"(?m)^\t(at |\.\.\. ).*\n", "");
        if figures {
            // With their padding, which goes by their width.
            text = replace(&text, r"(NaN|\d+(\.\d+)?) *", "N ");
        }
        text
    };
    Ran { code: ran.code, out: text(&ran.out), err: text(&ran.err), log: text(&ran.log) }
}

fn replace(text: &str, pattern: &str, with: &str) -> String {
    Regex::new(pattern).expect("a pattern").replace_all(text, with).into_owned()
}
