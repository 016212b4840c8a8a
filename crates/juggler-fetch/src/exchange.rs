//! One question and its answer: headers, credentials, redirects.

use crate::about::Version;
use crate::coding::OFFERED;
use crate::error::{Error, Kind};
use crate::netrc::Netrc;
use crate::options::Options;
use crate::pool::{Answer, Pool};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::time::{Duration, SystemTime};
use url::Url;

/// How often one file may be redirected.
const REDIRECTS: usize = 20;

/// Who asks: connections, and what every request carries.
pub(crate) struct Client {
    pool: Pool,
    headers: HeaderMap,
    netrc: Netrc,
    compressed: bool,
    timeout: Duration,
}

/// From which byte on and before which, of which version; `to` is [`u64::MAX`] for all the rest.
pub(crate) struct Rest<'a> {
    pub from: u64,
    pub to: u64,
    pub validator: &'a str,
}

impl Client {
    /// # Errors
    /// [`Kind::Address`] for a header or a proxy that is none; [`Kind::Disk`] for a netrc file that can't be read.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("juggler/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &options.headers {
            let wrong = || Error::new(Kind::Address, format!("not a header: {name:?}: {value:?}"));
            let key = HeaderName::try_from(name).map_err(|_| wrong())?;
            headers.insert(key, HeaderValue::try_from(value).map_err(|_| wrong())?);
        }
        let netrc = match &options.netrc {
            Some(path) => Netrc::read(path).map_err(|error| Error::disk("read", path, error))?,
            None => Netrc::default(),
        };
        let pool = Pool::new(options)?;
        Ok(Self { pool, headers, netrc, compressed: options.compressed, timeout: options.timeout })
    }

    /// Asks for `url`, or for the `rest` of it, and follows redirects. The answer, and where it came from in the end.
    ///
    /// # Errors
    /// Those of [`Pool::send`]; [`Kind::Timeout`], [`Kind::Redirects`].
    pub async fn get(&self, url: &Url, rest: Option<Rest<'_>>) -> Result<(Answer, Url), Error> {
        let mut seen = vec![url.clone()];
        loop {
            let now = &seen[seen.len() - 1];
            let answer = tokio::time::timeout(self.timeout, self.ask(now, url, rest.as_ref()))
                .await
                .map_err(|_| Error::new(Kind::Timeout, format!("no answer within {:?}", self.timeout)))??;
            let status = answer.status;
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let last = seen.swap_remove(seen.len() - 1);
                return Ok((answer, last));
            }
            let next = target(now, &answer.headers)?;
            if seen.contains(&next) {
                let way = seen.iter().map(Url::as_str).collect::<Vec<_>>().join(" -> ");
                return Err(Error::new(Kind::Redirects, format!("redirected in a circle: {way} -> {next}")));
            }
            if seen.len() > REDIRECTS {
                return Err(Error::new(Kind::Redirects, format!("redirected more than {REDIRECTS} times")));
            }
            seen.push(next);
        }
    }

    async fn ask(&self, url: &Url, first: &Url, rest: Option<&Rest<'_>>) -> Result<Answer, Error> {
        let mut headers = self.headers.clone();
        let encodings = if self.compressed { OFFERED } else { "identity" };
        headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static(encodings));
        if url.origin() != first.origin() {
            // What the user trusts one server with is not another's business.
            for name in [header::AUTHORIZATION, header::COOKIE, header::HOST] {
                headers.remove(name);
            }
        }
        if let Some(credentials) = self.credentials(url) {
            headers.entry(header::AUTHORIZATION).or_insert(credentials);
        }
        if let Some(rest) = rest {
            let wrong = |_| Error::new(Kind::Protocol, "the server's validator can't be sent back");
            let last = if rest.to == u64::MAX { String::new() } else { (rest.to - 1).to_string() };
            headers.insert(header::RANGE, HeaderValue::try_from(format!("bytes={}-{last}", rest.from)).map_err(wrong)?);
            headers.insert(header::IF_RANGE, HeaderValue::try_from(rest.validator).map_err(wrong)?);
        }
        self.pool.send(url, headers).await
    }

    /// Those in the address before those of the netrc file.
    fn credentials(&self, url: &Url) -> Option<HeaderValue> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (name, password) = match (url.username(), url.password()) {
            ("", None) => {
                self.netrc.of(url.host_str()?).map(|(name, password)| (name.to_owned(), password.to_owned()))?
            }
            (name, password) => (decoded(name), decoded(password.unwrap_or(""))),
        };
        let mut value =
            HeaderValue::try_from(format!("Basic {}", base64(format!("{name}:{password}").as_bytes()))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn target(url: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let wrong = |what: &str| Error::new(Kind::Redirects, format!("{url} redirects to {what}"));
    let location = headers.get(header::LOCATION).ok_or_else(|| wrong("nowhere"))?;
    let location = String::from_utf8_lossy(location.as_bytes());
    let next = url.join(&location).map_err(|error| wrong(&format!("{location:?}: {error}")))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(wrong(&format!("{location:?}, which is not HTTP")));
    }
    Ok(next)
}

/// A header's text, if it is text.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// A header as text, with what is not UTF-8 replaced.
pub(crate) fn lossy(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The version that an answer is of; `length` is the whole file's.
pub(crate) fn version(headers: &HeaderMap, length: Option<u64>) -> Version {
    let etag = text(headers, header::ETAG).filter(|etag| etag.starts_with('"')).map(str::to_owned);
    // A file can change twice in the second of its date; afterwards the date is a strong validator (RFC 9110, 8.8.2.2).
    let date = |name| text(headers, name).and_then(|text| httpdate::parse_http_date(text).ok());
    let is_old = date(header::LAST_MODIFIED)
        .zip(date(header::DATE))
        .is_some_and(|(modified, now)| now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1)));
    let modified = text(headers, header::LAST_MODIFIED).filter(|_| is_old).map(str::to_owned);
    Version { etag, modified, length }
}

/// The error that a status is, with how long the server asks to wait.
pub(crate) fn refusal(status: StatusCode, headers: &HeaderMap) -> Error {
    let retry_after = text(headers, header::RETRY_AFTER).and_then(|text| match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    });
    let mut error = Error::new(Kind::Status, format!("the server answers {status}"));
    (error.status, error.retry_after) = (Some(status.as_u16()), retry_after);
    error
}

/// `Content-Range`: the first and the last byte, and the length of the whole.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let (range, whole) = text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let whole = if whole == "*" { None } else { Some(whole.parse().ok()?) };
    (first <= last && whole.is_none_or(|whole| last < whole)).then_some((first, last, whole))
}

/// Looks whether a 206 brings the bytes from `from` on, and none from `to` on, of the version `old`; where they end, and the
/// length of the whole.
///
/// # Errors
/// [`Kind::Range`] for other bytes, [`Kind::Length`] for a contradiction, [`Kind::Changed`] for another version.
pub(crate) fn check_part(headers: &HeaderMap, old: &Version, from: u64, to: u64) -> Result<(u64, Option<u64>), Error> {
    let wrong = |what: String| {
        Error::new(Kind::Range, format!("asked for the rest from byte {from} on, the server sends {what}"))
    };
    let Some((first, last, whole)) = content_range(headers) else {
        return Err(wrong("a part without saying which (no valid Content-Range)".into()));
    };
    if first != from || last >= to {
        return Err(wrong(format!("the bytes from {first} on to {last}")));
    }
    let length = text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length != last - first + 1) {
        let message = format!("the server says {} bytes ({first} to {last}) and sends others", last - first + 1);
        return Err(Error::new(Kind::Length, message));
    }
    let new = version(headers, whole);
    // A 206 need not repeat the date, but what it says must be the same, and an ETag it must say (RFC 9110, 15.3.7).
    let says_other = |old: &Option<String>, new: &Option<String>| new.is_some() && old != new;
    let other = old.etag != new.etag
        || says_other(&old.modified, &new.modified)
        || old.length.zip(whole).is_some_and(|(old, new)| old != new);
    if other {
        return Err(Error::new(Kind::Changed, "the file changed meanwhile"));
    }
    Ok((last + 1, whole))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn base64_as_in_the_rfc() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn only_strong_validators_count() {
        let weak = headers(&[("etag", "W/\"a\"")]);
        assert_eq!(version(&weak, None).validator(), None);
        let strong = headers(&[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert_eq!(version(&strong, None).validator(), Some("\"a\""));
        let at = |now| headers(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", now)]);
        assert_eq!(version(&at("Sun, 06 Nov 1994 08:49:37 GMT"), None).validator(), None);
        assert!(version(&at("Sun, 06 Nov 1994 08:49:38 GMT"), None).validator().is_some());
    }

    #[test]
    fn ranges_that_contradict_themselves_are_none() {
        let range = |text| content_range(&headers(&[("content-range", text)]));
        assert_eq!(range("bytes 2-5/9"), Some((2, 5, Some(9))));
        assert_eq!(range("bytes 2-5/*"), Some((2, 5, None)));
        for wrong in ["bytes 5-2/9", "bytes 2-9/9", "bytes */9", "2-5/9", "bytes 2-5", "bytes a-b/c"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let wait =
            |text: &str| refusal(StatusCode::SERVICE_UNAVAILABLE, &headers(&[("retry-after", text)])).retry_after;
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        let later = SystemTime::now() + Duration::from_secs(100);
        assert!(wait(&httpdate::fmt_http_date(later)).unwrap() > Duration::from_secs(50));
        assert_eq!(wait("soon"), None);
    }
}
