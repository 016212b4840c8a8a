//! Addresses in a file: one a line, each followed by its checksum if it has one.

use std::io::{self, Read};
use std::path::Path;

/// An address, and what its content must hash to.
pub type Listed = (String, Option<String>);

/// What the file `path` lists, or standard input if that is `-`.
///
/// # Errors
/// A sentence that says which file can't be read, and why.
pub fn read(path: &Path) -> Result<Vec<Listed>, String> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = read.map_err(|error| format!("cannot read the list {}: {error}", path.display()))?;
    Ok(parse(&text))
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
