//! The processor time of what is measured: on a machine that has other work to do it says more than the clock.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

/// Linux tells processor time in hundredths of a second, whatever the kernel's own clock.
const TICK: Duration = Duration::from_millis(10);

/// What the process whose number lies in `pid` in this directory has used since it was started.
///
/// # Errors
/// If there is none.
pub(crate) fn used(dir: &Path) -> Result<Duration> {
    let pid = fs::read_to_string(dir.join("pid")).with_context(|| format!("no process in {}", dir.display()))?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()))?;
    ticks(&stat).map(|ticks| TICK * ticks).context("the kernel tells no processor time")
}

/// Those of the process and of the kernel for it: the 14th and the 15th field. The second one is the name, in brackets
/// and with whatever in it.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    fields.next()??.checked_add(fields.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_blanks_and_brackets() {
        assert_eq!(ticks("7 (a) b) R 1 2 3 4 5 6 7 8 9 10 30 12 13 14"), Some(42));
        assert_eq!(ticks("7 (short) R 1 2 3"), None);
    }
}
