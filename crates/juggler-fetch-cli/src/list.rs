//! Addresses in a file: one a line, each followed by its checksum if it has one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// An address, and what its content must hash to.
pub type Listed = (String, Option<String>);

/// What the file `path` lists, or standard input if that is `-`; until `is_interrupted` says so.
///
/// # Errors
/// A sentence that says which file can't be read, and why.
pub fn read(path: &Path, is_interrupted: &impl Fn() -> bool) -> Result<Vec<Listed>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read the list {}: {error}", path.display());
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| failed(&error))?)
    };
    let (mut bytes, mut piece) = (Vec::new(), [0; 1 << 16]);
    loop {
        match source.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            // A terminal or a pipe may have nothing to say for ever.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && !is_interrupted() => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(parse(std::str::from_utf8(&bytes).map_err(|error| failed(&error))?))
}

fn parse(text: &str) -> Vec<Listed> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let url = words.next().filter(|word| !word.starts_with('#'))?;
        Some((url.to_owned(), words.next().map(str::to_owned)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_skipped() {
        let listed = parse("http://a/\n# http://b/\n\n \t\n  http://c/\tsha256:0 more\r\n #d\n");
        let expected = [("http://a/", None), ("http://c/", Some("sha256:0"))];
        let expected = expected.map(|(url, checksum)| (url.to_owned(), checksum.map(str::to_owned)));
        assert_eq!(listed, expected);
    }
}
