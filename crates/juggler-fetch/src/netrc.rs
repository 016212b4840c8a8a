//! Credentials from a `.netrc` file.

use std::fs;
use std::io;
use std::path::Path;

/// Who is who at which host; `default` has an empty host and stands last.
#[derive(Debug, Default)]
pub(crate) struct Netrc {
    entries: Vec<(String, String, String)>,
}

impl Netrc {
    /// Reads the file; one that is not there has no entries.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Self {
        let mut entries: Vec<(String, String, String)> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let mut words = line.split_whitespace();
            while let Some(word) = words.next() {
                match word {
                    "machine" => entries.push((words.next().unwrap_or("").into(), String::new(), String::new())),
                    "default" => entries.push(Default::default()),
                    // A macro lasts until an empty line.
                    "macdef" => {
                        lines.by_ref().find(|line| line.trim().is_empty());
                        break;
                    }
                    "login" | "password" | "account" => {
                        let value = words.next().unwrap_or("").trim_matches('"').to_owned();
                        match (word, entries.last_mut()) {
                            ("login", Some(entry)) => entry.1 = value,
                            ("password", Some(entry)) => entry.2 = value,
                            _ => {}
                        }
                    }
                    comment if comment.starts_with('#') => break,
                    _ => {}
                }
            }
        }
        Self { entries }
    }

    /// Name and password for `host`.
    pub fn of(&self, host: &str) -> Option<(&str, &str)> {
        let is_of = |entry: &&(String, String, String)| entry.0.is_empty() || entry.0.eq_ignore_ascii_case(host);
        self.entries.iter().find(is_of).map(|(_, login, password)| (login.as_str(), password.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_the_host_or_the_default() {
        let text = "# all\nmachine a.org login me password p#1\nmacdef init\nmachine no login x\n\n\
                    machine b.org\n  login you\n  password \"two\" # words\ndefault login anon password guest";
        let netrc = Netrc::parse(text);
        assert_eq!(netrc.of("A.org"), Some(("me", "p#1")));
        assert_eq!(netrc.of("b.org"), Some(("you", "two")));
        assert_eq!(netrc.of("no"), Some(("anon", "guest")));
        assert_eq!(Netrc::parse("machine a login b password c").of("x"), None);
    }
}
