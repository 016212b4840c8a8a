//! A bar for each file that is under way, and a line for all.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use juggler_fetch::board::Progress;
use juggler_fetch::{Snapshot, Stage};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most files that have a bar at once; the others are in the sum.
const MOST: usize = 16;
/// The most characters of a name.
const NAME: usize = 24;

/// Of a file whose length the server told.
const MEASURED: &str = "{prefix:24} {wide_bar:.green} {decimal_bytes:>9} of {decimal_total_bytes:9} \
    {decimal_bytes_per_sec:>12} {eta:>4} {msg}";
const UNMEASURED: &str = "{prefix:24} {decimal_bytes:>9} {decimal_bytes_per_sec:>12} {msg}";

/// The bars on the terminal, which are gone when they are dropped.
pub struct Bars {
    all: ProgressBar,
    bars: BTreeMap<u64, Bar>,
    place: MultiProgress,
    measured: ProgressStyle,
    unmeasured: ProgressStyle,
}

/// A file's bar.
struct Bar {
    bar: ProgressBar,
    /// Bytes have come.
    has_begun: bool,
}

impl Bars {
    /// How often they are drawn.
    pub const INTERVAL: Duration = Duration::from_millis(100);

    /// Shows the line for all.
    pub fn new() -> Self {
        let place = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let (measured, unmeasured) = (style(MEASURED), style(UNMEASURED));
        let all = place.add(ProgressBar::no_length()).with_style(unmeasured.clone()).with_prefix("all files");
        Self { all, bars: BTreeMap::new(), place, measured, unmeasured }
    }

    /// Draws what is under way; `note` says how many files are whole.
    pub fn show(&mut self, snapshot: &Snapshot, note: String) {
        let under_way = snapshot.files.iter().filter(|(_, file)| file.stage != Stage::Queued);
        let shown: BTreeMap<u64, &Progress> = under_way.take(MOST).map(|(&index, file)| (index, file)).collect();
        self.bars.retain(|index, Bar { bar, .. }| {
            let stays = shown.contains_key(index);
            if !stays {
                bar.finish_and_clear();
                self.place.remove(bar);
            }
            stays
        });
        for (index, file) in shown {
            let new = || Bar { bar: self.place.add(at(ProgressBar::hidden(), file.received)), has_begun: false };
            let Bar { bar, has_begun } = self.bars.entry(index).or_insert_with(new);
            bar.set_style(if file.length.is_some() { self.measured.clone() } else { self.unmeasured.clone() });
            bar.set_prefix(tail(&file.name));
            bar.set_message(about(file));
            if let Some(length) = file.length {
                bar.set_length(length);
            }
            if *has_begun || file.stage != Stage::Receiving {
                bar.set_position(file.received);
            } else {
                at(bar.clone(), file.received);
                *has_begun = true;
            }
        }
        self.all.set_message(note);
        self.all.set_position(snapshot.totals.received);
    }

    /// Prints a line above the bars.
    pub fn line(&self, text: &str) {
        // Nobody is left to read it if that fails.
        let _ = self.place.println(text);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        let _ = self.place.clear();
    }
}

/// Puts a bar at `position`. What was there before counts for the bar, but not for its speed.
fn at(bar: ProgressBar, position: u64) -> ProgressBar {
    bar.set_position(position);
    bar.tick();
    bar.reset_eta();
    bar
}

fn style(template: &str) -> ProgressStyle {
    // It fails of a template that is none, and ours are.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━┄")
}

/// What is being done for a file, unless bytes simply come.
fn about(file: &Progress) -> String {
    let stage = match file.stage {
        Stage::Receiving => "",
        Stage::Queued => "queued",
        Stage::Asking => "asking",
        Stage::Waiting => "waiting",
        Stage::Syncing => "syncing",
    };
    match &file.waits {
        Some((why, wait)) => format!("{why}: again in {:.0} s", wait.as_secs_f64()),
        None => stage.to_owned(),
    }
}

/// The end of a name, which tells more than its beginning.
fn tail(name: &str) -> String {
    let plain = name.replace(char::is_control, "\u{fffd}");
    let skipped = plain.chars().count().saturating_sub(NAME);
    plain.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_shows_its_end_and_no_controls() {
        assert_eq!(tail("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(tail(&format!("{}.zip", "é".repeat(40))), format!("{}.zip", "é".repeat(20)));
    }

    #[test]
    fn the_templates_are_templates() {
        for template in [MEASURED, UNMEASURED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
