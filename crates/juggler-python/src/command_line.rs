//! The words after `juggler fetch`. Parsed here because Python's own parsers take longer to import than many small files to
//! fetch.

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Parser};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::ffi::OsString;

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
#[pyclass(frozen, get_all, module = "juggler._juggler")]
pub struct FetchWords {
    #[arg(value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    urls: Vec<String>,
    /// a file with an address a line, or - for standard input; a checksum may
    /// follow the address, and lines that begin with # are comments
    #[arg(short, long, value_name = "LIST", verbatim_doc_comment)]
    input: Option<OsString>,
    /// the folder for the files; made if it is not there (default: .)
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    output: OsString,
    /// files in flight at once (default: 16)
    #[arg(long, value_name = "N", default_value_t = 16, hide_default_value = true, allow_negative_numbers = true)]
    limit: i64,
    /// files in flight at once from one host (default: 6)
    #[arg(long, value_name = "N", default_value_t = 6, hide_default_value = true, allow_negative_numbers = true)]
    per_host: i64,
    /// the most bytes a second over all files, such as 10MB/s
    #[arg(long, value_parser = rate)]
    rate: Option<String>,
    /// attempts after the first of a file that gets nowhere (default: 5)
    #[arg(long, value_name = "N", default_value_t = 5, hide_default_value = true, allow_negative_numbers = true)]
    retries: i64,
    /// before the second attempt; doubles with each (default: 0.5)
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0.5,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    backoff: f64,
    /// for a connection and the beginning of an answer (default: 30)
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30.0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    timeout: f64,
    /// of silence after which an attempt is cut and continued (default: 20)
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 20.0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    stall: f64,
    /// for everything
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    deadline: Option<f64>,
    /// the most that a server's Retry-After is obeyed (default: 120)
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 120.0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    patience: f64,
    /// what one file must hash to; sha1, sha256, sha384 and sha512 are known
    #[arg(long, value_name = "ALGO:HEX")]
    checksum: Option<String>,
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
    cacert: Option<OsString>,
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

#[pymethods]
impl FetchWords {
    /// The options and addresses in `words`. Raises `ValueError`, with the status to exit with and what to say as its
    /// arguments, if they are wrong or ask for help.
    #[new]
    fn new(words: Vec<OsString>) -> PyResult<Self> {
        Self::try_parse_from(words)
            .map_err(|error| PyValueError::new_err((error.exit_code(), error.render().to_string())))
    }
}

/// Bytes are meant to be those of a second.
fn rate(text: &str) -> Result<String, String> {
    Ok(if text.contains('/') { text.to_owned() } else { format!("{text}/s") })
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("not 'NAME: TEXT'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
