//! Included by the crates whose laws are fuzzed: gives a law every input that `corpus/` keeps for it.

/// Runs `law` on all that is kept for `target`. `root` is the way from the crate to the repository.
///
/// # Panics
/// As the law, and where nothing is kept, which would test nothing.
pub(crate) fn replay(root: &str, target: &str, law: fn(&[u8])) {
    let folder = format!("{}/{root}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let failed = |error: std::io::Error| -> ! { panic!("{folder}: {error}") };
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| failed(error));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap_or_else(|error| failed(error)).path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} holds nothing");
    for file in files {
        // Shown of a test that fails: the last one is the one.
        println!("{}", file.display());
        law(&std::fs::read(&file).unwrap_or_else(|error| failed(error)));
    }
}
