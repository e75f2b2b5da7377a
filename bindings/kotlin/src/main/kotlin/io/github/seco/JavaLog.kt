package io.github.seco

import java.util.logging.Level
import java.util.logging.Logger

/** Tells [logger] of `java.util.logging` what a client does: as `FINE`, `INFO` and `WARNING`. */
class JavaLog(private val logger: Logger = Logger.getLogger("io.github.seco")) : ClientLog {
    override fun log(level: LogLevel, name: String, text: String) = logger.log(
        when (level) {
            LogLevel.DEBUG -> Level.FINE
            LogLevel.INFO -> Level.INFO
            LogLevel.WARNING -> Level.WARNING
        },
        text,
    )
}
