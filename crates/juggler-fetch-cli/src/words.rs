//! The words after `juggler fetch`, and what they ask the engine for.

use crate::display::Shows;
use crate::list;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Parser};
use juggler_fetch::{Checksum, Job, Options, Rate};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
examples:
  juggler fetch https://example.org/a.zip https://example.org/b.zip -o downloads
  juggler fetch -i list.txt --rate 10MB/s --deadline 3600
  juggler fetch https://example.org/x.iso --checksum sha256:9f86d081884c7d65...

exit status:
  0 if every file is whole; 1 if one is not; 2 where the command line is wrong; 130 after Ctrl-C,
  when the same command continues";

/// Fetch files over HTTP and HTTPS, many at once. A file at its final name is whole: until then it has
/// no name, or is NAME.ID.part if it takes a while, which is continued after a fault, also by the next
/// call, if the server has not changed the file. Where a file of its name is there already, the new one
/// gets a name beside it (x-1.zip).
#[derive(Parser)]
#[command(
    no_binary_name = true,
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    verbatim_doc_comment,
    override_usage = "juggler fetch [options] URL...\n       juggler fetch [options] -i LIST",
    help_template = "usage: {usage}\n\n{about}\n\noptions:\n{options}{after-help}\n",
    after_help = EXAMPLES
)]
pub struct Words {
    #[arg(value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    urls: Vec<String>,
    /// a file with an address a line, or - for standard input; a checksum may
    /// follow the address, and lines that begin with # are comments
    #[arg(short, long, value_name = "LIST", verbatim_doc_comment)]
    input: Option<PathBuf>,
    /// the folder for the files; made if it is not there (default: .)
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    output: PathBuf,
    /// files in flight at once (default: 16)
    #[arg(long, value_name = "N", default_value_t = 16, hide_default_value = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// files in flight at once from one host (default: 6)
    #[arg(long, value_name = "N", default_value_t = 6, hide_default_value = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    per_host: u32,
    /// the most bytes a second over all files, such as 10MB/s
    #[arg(long, value_parser = rate)]
    rate: Option<Rate>,
    /// attempts after the first of a file that gets nowhere (default: 5)
    #[arg(long, value_name = "N", default_value_t = 5, hide_default_value = true, allow_negative_numbers = true)]
    retries: u32,
    /// before the second attempt; doubles with each (default: 0.5)
    #[arg(long, value_name = "SECONDS", default_value = "0.5", hide_default_value = true, allow_negative_numbers = true, value_parser = seconds)]
    backoff: Duration,
    /// for a connection and the beginning of an answer (default: 30)
    #[arg(long, value_name = "SECONDS", default_value = "30", hide_default_value = true, allow_negative_numbers = true, value_parser = seconds)]
    timeout: Duration,
    /// of silence after which an attempt is cut and continued (default: 20)
    #[arg(long, value_name = "SECONDS", default_value = "20", hide_default_value = true, allow_negative_numbers = true, value_parser = seconds)]
    stall: Duration,
    /// for everything
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    deadline: Option<Duration>,
    /// the most that a server's Retry-After is obeyed (default: 120)
    #[arg(long, value_name = "SECONDS", default_value = "120", hide_default_value = true, allow_negative_numbers = true, value_parser = seconds)]
    patience: Duration,
    /// what one file must hash to; sha1, sha256, sha384 and sha512 are known
    #[arg(long, value_name = "ALGO:HEX")]
    checksum: Option<Checksum>,
    /// begin each attempt anew, instead of continuing parts
    #[arg(long = "no-resume", action = ArgAction::SetFalse, overrides_with = "always_resume")]
    resume: bool,
    /// continue parts (the default)
    #[arg(long = "resume", overrides_with = "resume")]
    always_resume: bool,
    /// replace files of the same name
    #[arg(long)]
    overwrite: bool,
    /// do not wait for the disk: faster, and a kill of this program loses
    /// nothing, but a power cut may leave damaged files; for CI and caches
    #[arg(long = "no-sync", action = ArgAction::SetFalse, overrides_with = "always_sync", verbatim_doc_comment)]
    sync: bool,
    /// have a file on the disk before it is told to be there (the default)
    #[arg(long = "sync", overrides_with = "sync")]
    always_sync: bool,
    /// ask for gzip, brotli and zstd, and decode them
    #[arg(long)]
    compressed: bool,
    /// a further header of every request; may be given again
    #[arg(long = "header", value_name = "NAME: TEXT", action = ArgAction::Append, value_parser = header)]
    headers: Vec<(String, String)>,
    /// take credentials from $NETRC or ~/.netrc
    #[arg(long)]
    netrc: bool,
    /// an HTTP or SOCKS5 proxy, '' for none (default: what the environment says)
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// certificates to trust besides the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// print a JSON object for each file to standard output, and one for all
    #[arg(long)]
    json: bool,
    /// show nothing but failures
    #[arg(short, long)]
    quiet: bool,
    /// show this help
    #[arg(short, long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What is to be done.
pub struct Order {
    pub options: Options,
    pub jobs: Vec<Job>,
    pub shows: Shows,
}

impl Words {
    /// # Errors
    /// What to say of `words` that are wrong, or that ask for help.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(words)
    }

    /// What the words ask for. A list is read until `is_interrupted` says so.
    ///
    /// # Errors
    /// A sentence about words that are right by themselves, but not together, or of a list that can't be read.
    pub fn order(self, is_interrupted: &impl Fn() -> bool) -> Result<Order, String> {
        let mut files: Vec<(String, Option<Checksum>)> = self.urls.into_iter().map(|url| (url, None)).collect();
        if let Some(path) = &self.input {
            for (url, checksum) in list::read(path, is_interrupted)? {
                let checksum = checksum.map(|text| text.parse().map_err(|wrong| format!("{url}: {wrong}")));
                files.push((url, checksum.transpose()?));
            }
        } else if files.is_empty() {
            return Err("which address?".to_owned());
        }
        if let Some(checksum) = self.checksum {
            let [(_, expected)] = &mut files[..] else {
                return Err("--checksum is for a single address; in a list it follows each address".to_owned());
            };
            *expected = Some(checksum);
        }
        let job = |(index, (url, checksum))| Job { index, url, name: None, checksum };
        let jobs = (0..).zip(files).map(job).collect();
        let options = Options {
            folder: self.output,
            limit: self.limit as usize,
            per_host: self.per_host as usize,
            rate: self.rate,
            retries: self.retries,
            backoff: self.backoff,
            timeout: self.timeout,
            stall: self.stall,
            // Beyond what the clock can tell is the same as none.
            deadline: self.deadline.and_then(|span| Instant::now().checked_add(span)),
            patience: self.patience,
            resume: self.resume,
            overwrite: self.overwrite,
            sync: self.sync,
            compressed: self.compressed,
            headers: self.headers,
            netrc: if self.netrc { Some(netrc()?) } else { None },
            proxy: self.proxy,
            cacert: self.cacert,
        };
        Ok(Order { options, jobs, shows: Shows { json: self.json, quiet: self.quiet } })
    }
}

/// Where credentials are kept.
fn netrc() -> Result<PathBuf, String> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("NETRC")
        .or_else(|| Some(named("HOME")?.join(".netrc")))
        .ok_or_else(|| "--netrc: neither NETRC nor HOME says where".to_owned())
}

/// Bytes are meant to be those of a second.
fn rate(text: &str) -> Result<Rate, String> {
    let rate = if text.contains('/') { Rate::parse(text) } else { Rate::parse(&format!("{text}/s")) };
    rate.map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(number).map_err(|_| "not a number of seconds that can be waited".to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("not 'NAME: TEXT'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(words: &[&str]) -> Result<Order, String> {
        Words::parse(words.iter().map(OsString::from)).map_err(|error| error.to_string())?.order(&|| false)
    }

    #[test]
    fn what_is_not_said_is_as_the_engine_has_it() {
        let (Order { options, jobs, .. }, default) = (order(&["http://x/"]).unwrap(), Options::default());
        assert_eq!(format!("{options:?}"), format!("{default:?}"));
        assert_eq!(jobs.len(), 1);
    }

    #[test]
    fn the_last_of_two_words_counts() {
        let resumes = |words: &[&str]| order(words).unwrap().options.resume;
        assert!(resumes(&["http://x/", "--no-resume", "--resume"]));
        assert!(!resumes(&["http://x/", "--resume", "--no-resume"]));
        assert!(!order(&["http://x/", "--sync", "--no-sync"]).unwrap().options.sync);
    }

    #[test]
    fn a_rate_without_a_time_is_one_of_a_second() {
        assert_eq!(order(&["http://x/", "--rate", "10MB"]).unwrap().options.rate, Rate::parse("10MB/s").ok());
    }
}
