package io.github.seco

import java.io.File
import java.io.FileNotFoundException
import java.io.FileOutputStream
import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption

/**
 * Keeps a session in [file], which only this user can read.
 *
 * The content is secret and must not return to an earlier state: on Android use a file below
 * `Context.noBackupFilesDir`, which backups leave out. One process uses it at a time.
 */
class FileSessionStore(private val file: File) : SessionStore {
    override fun load(): ByteArray? = try {
        file.readBytes()
    } catch (_: FileNotFoundException) {
        if (file.exists()) throw StoreException.Unavailable("$file cannot be read") else null
    } catch (failure: IOException) {
        throw StoreException.Unavailable(failure.message.orEmpty())
    }

    override fun save(session: ByteArray) {
        val next = File("$file.new")
        try {
            next.delete()
            if (!next.createNewFile()) throw IOException("$next is in the way")
            // Nobody else, then the owner: before anything is written.
            next.setReadable(false, false)
            next.setReadable(true, true)
            FileOutputStream(next).use {
                it.write(session)
                it.fd.sync()
            }
            if (!next.renameTo(file)) throw IOException("$next cannot be renamed")
            // The new name must outlive a crash too.
            FileChannel.open(file.absoluteFile.parentFile.toPath(), StandardOpenOption.READ).use { it.force(true) }
        } catch (failure: IOException) {
            throw StoreException.Unavailable(failure.message.orEmpty())
        } finally {
            session.fill(0)
        }
    }
}
