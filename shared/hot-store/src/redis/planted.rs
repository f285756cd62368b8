//! Planted bugs in the scripts: each is a piece of a script's text and what stands in its place.

use planted::Bug;

const PATCHES: &[(Bug, &str, &str)] = &[
    (
        Bug::IncarnationIgnored,
        "if fields[1] ~= live_incarnation() then return nil end",
        "if not fields[1] then return nil end",
    ),
    (Bug::IncarnationIgnored, "if fields[1] == live then", "if fields[1] then"),
    (Bug::IncarnationIgnored, "fields[1] == live_incarnation() and 1 or 0", "fields[1] and 1 or 0"),
    (Bug::EtagIgnoresEpoch, "read_version ~= version or read_epoch ~= epoch", "read_version ~= version"),
    (
        Bug::TtlOnDirty,
        "redis.call('MSET', unpack(values))",
        "for v = 1, #values, 2 do redis.call('SET', values[v], values[v + 1], 'PX', 1000) end",
    ),
    (
        Bug::HotTombstoneDropped,
        "redis.call('MSET', unpack(values))",
        "for v = 1, #values, 2 do
          redis.call('SET', values[v], values[v + 1])
          if string.sub(values[v + 1], 1, 1) == 'T' then redis.call('DEL', values[v]) end
        end",
    ),
    (
        Bug::ParkedExpires,
        "redis.call('SETRANGE', key, 0, kind == 'I' and 'P' or 'Q')",
        "redis.call('SETRANGE', key, 0, (kind == 'I') and 'P' or 'Q') redis.call('PEXPIRE', key, 1000)",
    ),
    (
        Bug::AckAcrossEpoch,
        "if epoch ~= tonumber(ARGV[1]) then return CLOSED end\nlocal answer, queued",
        "if not epoch then return CLOSED end\nlocal answer, queued",
    ),
    (Bug::RelayClearsNewerMark, "if known and version == asked then", "if known then"),
    (
        Bug::FillWithoutLease,
        "if slot(value, epoch, lowest) ~= 'L' or string.sub(value, HEAD_END + 2) ~= ARGV[1] then return 0 end",
        "",
    ),
    (Bug::CleanWithoutComparing, "if is_image(kind) and version > asked then", "if false then"),
    (
        Bug::CleanWithoutComparing,
        "elseif version == asked then\n      redis.call('PEXPIRE', key, ARGV[1])",
        "elseif true then\n      redis.call('PEXPIRE', key, ARGV[1])",
    ),
];

/// The script's text; in a build for tests of the tests, with the bug that the environment names.
pub(super) fn plant(code: String) -> String {
    let planted = PATCHES.iter().filter(|(bug, ..)| planted::is(*bug));
    planted.fold(code, |code, (_, rule, instead)| code.replace(rule, instead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::scripts;

    /// A patch that no longer fits would plant nothing.
    #[test]
    fn every_patch_fits_one_place() {
        for (bug, rule, instead) in PATCHES {
            let places: usize = scripts::bodies().iter().map(|body| body.matches(rule).count()).sum();
            assert_eq!(places, 1, "{bug}: {rule}");
            assert!(!instead.contains(rule), "{bug}");
        }
    }
}
