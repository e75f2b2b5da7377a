//! A progress bar.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on standard error, which only a terminal shows.
pub fn progress(total: usize, what: &'static str, shown: bool) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64).with_message(what);
    let template = "  {msg} [{bar:30}] {pos}/{len}, {elapsed} gone, {eta} to go";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    // Bundles take seconds; the clock should go on meanwhile.
    bar.enable_steady_tick(std::time::Duration::from_millis(250));
    bar
}
