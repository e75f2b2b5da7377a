//! What a client tells of its work.

use std::sync::Arc;

use seco_sdk::{Event, Level};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum LogLevel {
    /// Of every request, or the application's own doing.
    Debug,
    /// Of connections and sessions.
    Info,
    /// Something is in the way, and mended or returned as an error.
    Warning,
}

/// Is told what a client does: connections, sessions, requests and what is in their way. Nothing that is secret: no inputs,
/// answers, keys, tokens or names of sessions.
#[uniffi::export(with_foreign)]
pub trait ClientLog: Send + Sync {
    /// `name` is the event's, which stays what it is (`connected`, `again`, ...), `text` a line for people. Called on the
    /// library's thread, and where `network_changed` is called: it should return at once, and must not call a client. What it
    /// throws is ignored.
    fn log(&self, level: LogLevel, name: String, text: String);
}

/// A [`ClientLog`] as the SDK wants it.
pub struct Adapter(pub Arc<dyn ClientLog>);

impl seco_sdk::Log for Adapter {
    fn log(&self, event: &Event<'_>) {
        let level = match event.level() {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            _ => LogLevel::Warning,
        };
        // What it throws ends in the SDK.
        self.0.log(level, event.name().to_owned(), event.to_string());
    }
}
