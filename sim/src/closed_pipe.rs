//! Who reads what is printed may have seen enough (`| head`): that is no fault, and ends the program without a word.
//!
//! The model: `println!` panics where nobody reads any more, so whoever hears of panics asks here first. Never: another panic taken
//! for that one.

use std::panic;

/// As the shell names the end of a process that writes to a closed pipe.
const CLOSED_PIPE: i32 = 128 + 13;

/// From now on, until another hook is set.
pub(crate) fn end_quietly() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let what = info.payload().downcast_ref::<String>();
        if what.is_some_and(|what| what.starts_with("failed printing to std") && what.contains("Broken pipe"))
        {
            std::process::exit(CLOSED_PIPE);
        }
        usual(info);
    }));
}
