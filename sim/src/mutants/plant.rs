//! The text changes of the chosen bugs as switches: `if planted(NAME) { to } else { from }`. Several changes of one place are
//! branches of one switch. Never: a change whose place is ambiguous, or that overlaps another.

use anyhow::{Context, Result, ensure};

use super::chosen::{Change, Kind};

/// A change and the bug that it belongs to.
pub(super) type Planted<'a> = (&'a str, &'a Change);

/// `text` with each of `changes` behind its switch, or in place.
pub(super) fn plant(text: &str, changes: &[Planted<'_>]) -> Result<String> {
    let mut places = Vec::new();
    for (name, change) in changes {
        let mut found = text.match_indices(change.from.trim());
        let (start, matched) = found.next().with_context(|| format!("{name}: `from` is not there"))?;
        ensure!(found.next().is_none(), "{name}: `from` is there more than once");
        places.push((start, start + matched.len(), (*name, *change)));
    }
    places.sort_by_key(|(start, ..)| *start);
    for pair in places.windows(2) {
        let same = pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1;
        ensure!(same || pair[0].1 <= pair[1].0, "{} and {} overlap", pair[0].2.0, pair[1].2.0);
    }
    let mut planted = String::with_capacity(text.len() * 2);
    let mut behind = 0;
    let mut index = 0;
    while index < places.len() {
        let (start, end, _) = places[index];
        let here: Vec<Planted<'_>> =
            places[index..].iter().take_while(|place| place.0 == start).map(|place| place.2).collect();
        index += here.len();
        planted.push_str(&text[behind..start]);
        planted.push_str(&switch(&here, &text[start..end]));
        behind = end;
    }
    planted.push_str(&text[behind..]);
    Ok(planted)
}

/// All changes of one place: each its own branch.
fn switch(changes: &[Planted<'_>], from: &str) -> String {
    if let Some((_, replaced)) = changes.iter().find(|(_, change)| change.kind == Kind::Rebuild) {
        return replaced.to.trim().to_owned();
    }
    let branches: String = changes
        .iter()
        .map(|(name, change)| format!("if crate::planted({name:?}) {{ {} }} else ", change.to.trim()))
        .collect();
    let whole = format!("{branches}{{ {from} }}");
    let expression = changes.iter().all(|(_, change)| change.kind == Kind::Expression);
    if expression { format!("({whole})") } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: &str, to: &str, kind: Kind) -> Change {
        Change { file: String::new(), from: from.to_owned(), to: to.to_owned(), kind }
    }

    #[test]
    fn a_change_becomes_a_switch_and_the_rest_stays() {
        let one = change("a < b", "a <= b", Kind::Expression);
        let two = change("sync();", "", Kind::Block);
        let planted = plant("if a < b { sync(); }", &[("two", &two), ("one", &one)]).unwrap();
        assert_eq!(
            planted,
            "if (if crate::planted(\"one\") { a <= b } else { a < b }) \
             { if crate::planted(\"two\") {  } else { sync(); } }"
        );
    }

    #[test]
    fn what_is_ambiguous_or_absent_is_refused() {
        let twice = change("x", "y", Kind::Expression);
        assert!(plant("x x", &[("twice", &twice)]).is_err());
        assert!(plant("z", &[("twice", &twice)]).is_err());
    }
}
