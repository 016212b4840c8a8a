//! Which name a file gets: one that stays in the folder.
//!
//! A server's `Content-Disposition` comes first (RFC 6266), then the last part of the address. A name with a separator, or
//! `..`, is refused rather than mended: whoever sends it is wrong or hostile, and the user should know. What is merely
//! awkward (control characters, a leading dot, too long) is made plain.

use crate::error::{Error, Kind};
use percent_encoding::percent_decode_str;
use url::Url;

/// Bytes of a name, so that what is added to it still fits into the 255 that a file system takes.
const LONGEST: usize = 200;

/// The name for what `url` answered with, given the answer's `Content-Disposition`.
///
/// # Errors
/// [`Kind::Name`] for one that leads out of the folder.
pub(crate) fn of_answer(disposition: Option<&str>, url: &Url) -> Result<String, Error> {
    match disposition.and_then(of_disposition) {
        Some(name) => safe(&name),
        None => of_url(url),
    }
}

/// The name that an address ends in.
///
/// # Errors
/// [`Kind::Name`] for one that leads out of the folder.
pub(crate) fn of_url(url: &Url) -> Result<String, Error> {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or("");
    if last.is_empty() {
        return Ok("index.html".into());
    }
    safe(&percent_decode_str(last).decode_utf8_lossy())
}

/// `name` as it may stand in a folder.
///
/// # Errors
/// [`Kind::Name`] for one that leads out of the folder.
pub(crate) fn safe(name: &str) -> Result<String, Error> {
    if name.contains(['/', '\\', '\0']) || matches!(name, "." | "..") {
        return Err(Error::new(Kind::Name, format!("the name {name:?} leads out of the folder")));
    }
    let mut plain: String = name.trim().chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    if plain.starts_with('.') {
        plain.replace_range(..1, "_");
    }
    if plain.is_empty() {
        return Err(Error::new(Kind::Name, "the server gives an empty name"));
    }
    if plain.len() > LONGEST {
        let (stem, end) = split(&plain);
        let end = if end.len() > 20 { "" } else { end };
        plain = format!("{}{end}", floor(stem, LONGEST - end.len()));
    }
    Ok(plain)
}

/// The `count`-th name beside `name` for another file of that name.
pub(crate) fn beside(name: &str, count: u32) -> String {
    let (stem, end) = split(name);
    format!("{stem}-{count}{end}")
}

/// A name's stem and its ending, of which `.tar.gz` is one.
fn split(name: &str) -> (&str, &str) {
    let Some(mut at) = name.rfind('.').filter(|&at| at > 0) else { return (name, "") };
    if let Some(stem) = name[..at].strip_suffix(".tar") {
        at = stem.len();
    }
    name.split_at(at)
}

/// As much of `text` as fits into `bytes`, in whole characters.
fn floor(text: &str, mut bytes: usize) -> &str {
    bytes = bytes.min(text.len());
    while !text.is_char_boundary(bytes) {
        bytes -= 1;
    }
    &text[..bytes]
}

/// The file name in a `Content-Disposition`; `filename*` (RFC 8187) before `filename`.
fn of_disposition(header: &str) -> Option<String> {
    let mut plain = None;
    for (key, value) in parameters(header) {
        if key.eq_ignore_ascii_case("filename*") {
            let mut parts = value.splitn(3, '\'');
            let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
            let bytes = percent_decode_str(text);
            return Some(if charset.eq_ignore_ascii_case("utf-8") {
                bytes.decode_utf8_lossy().into_owned()
            } else {
                bytes.map(char::from).collect()
            });
        }
        if key.eq_ignore_ascii_case("filename") {
            plain = Some(value);
        }
    }
    plain
}

/// The `key=value` pairs after the type, quoted values unquoted.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((key, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let mut value = String::new();
        let mut used = 0;
        if let Some(quoted) = after.strip_prefix('"') {
            used = 1;
            let mut characters = quoted.chars();
            while let Some(c) = characters.next() {
                used += c.len_utf8();
                match c {
                    '"' => break,
                    '\\' => {
                        let Some(escaped) = characters.next() else { break };
                        used += escaped.len_utf8();
                        // Browsers' authors escape only these; other backslashes are meant, and refused later.
                        if !matches!(escaped, '"' | '\\') {
                            value.push('\\');
                        }
                        value.push(escaped);
                    }
                    c => value.push(c),
                }
            }
        }
        let end = after[used..].find(';').map_or(after.len(), |at| used + at);
        if used == 0 {
            value = after[..end].trim().to_owned();
        }
        found.push((key.trim().to_owned(), value));
        rest = after.get(end + 1..).unwrap_or("");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(disposition: Option<&str>, url: &str) -> Result<String, Kind> {
        of_answer(disposition, &Url::parse(url).unwrap()).map_err(|error| error.kind)
    }

    #[test]
    fn the_address_names_the_file() {
        assert_eq!(named(None, "http://h/a/b%20c.tar.gz?x=/y").unwrap(), "b c.tar.gz");
        assert_eq!(named(None, "http://h/a/").unwrap(), "index.html");
        assert_eq!(named(Some("attachment"), "http://h/x").unwrap(), "x");
    }

    #[test]
    fn the_server_names_the_file() {
        let url = "http://h/x";
        assert_eq!(named(Some("attachment; filename=plain.txt"), url).unwrap(), "plain.txt");
        assert_eq!(named(Some(r#"attachment; filename="a;b\"c.txt"; size=3"#), url).unwrap(), "a;b\"c.txt");
        assert_eq!(named(Some("inline; filename=\"e.txt\"; filename*=UTF-8''%C3%A9.txt"), url).unwrap(), "é.txt");
        assert_eq!(named(Some("inline; filename*=iso-8859-1''%e9"), url).unwrap(), "é");
    }

    #[test]
    fn nothing_climbs_out() {
        for name in ["../x", "/etc/passwd", "..", "a/b", r"..\x", r"C:\x", "a\0b"] {
            assert_eq!(safe(name).map_err(|error| error.kind), Err(Kind::Name), "{name}");
        }
        for header in [r#"a; filename="../x""#, "a; filename=/etc/passwd", "a; filename*=UTF-8''..%2Fx"] {
            assert_eq!(named(Some(header), "http://h/x"), Err(Kind::Name), "{header}");
        }
        assert_eq!(named(None, "http://h/a/..%2f..%2fetc%2fpasswd"), Err(Kind::Name));
    }

    #[test]
    fn awkward_names_are_made_plain() {
        assert_eq!(safe(".bashrc").unwrap(), "_bashrc");
        assert_eq!(safe(" a\nb ").unwrap(), "a_b");
        let long = safe(&format!("{}.tar.gz", "é".repeat(300))).unwrap();
        assert!(long.len() <= LONGEST && long.ends_with("é.tar.gz"), "{long}");
    }

    #[test]
    fn names_beside_one_another() {
        assert_eq!(beside("a.tar.gz", 1), "a-1.tar.gz");
        assert_eq!(beside("a", 2), "a-2");
        assert_eq!(beside("a.b.c", 3), "a.b-3.c");
    }

    proptest::proptest! {
        #[test]
        fn a_safe_name_is_one_part_of_a_path(name in ".*") {
            if let Ok(name) = safe(&name) {
                proptest::prop_assert!(name.len() <= LONGEST && !name.starts_with('.'));
                let mut parts = std::path::Path::new(&name).components();
                let part = parts.next();
                proptest::prop_assert!(matches!(part, Some(std::path::Component::Normal(_))) && parts.next().is_none());
            }
        }

        #[test]
        fn no_header_makes_it_panic(header in ".*") {
            let _ = of_answer(Some(&header), &Url::parse("http://h/x").unwrap());
        }
    }
}
