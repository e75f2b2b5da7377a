package io.github.seco

import java.io.File
import java.io.FileNotFoundException
import java.io.FileOutputStream
import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption
import java.util.UUID

/**
 * Keeps a session in [file], which only this user can read.
 *
 * The content is secret: whoever gets it can read inputs and answers from recorded traffic. So on Android use a file
 * below `Context.noBackupFilesDir`, which backups leave out. Any number of threads and processes may use the file at
 * the same time.
 */
class FileSessionStore(private val file: File) : SessionStore {
    private val folder: File get() = file.absoluteFile.parentFile

    override fun load(): ByteArray? = try {
        file.readBytes()
    } catch (_: FileNotFoundException) {
        if (file.exists()) throw StoreException.Unavailable("$file cannot be read") else null
    } catch (failure: IOException) {
        throw StoreException.Unavailable(failure.message.orEmpty())
    }

    override fun save(session: ByteArray) {
        // A name that no other writer has.
        val next = File(folder, "${file.name}.${UUID.randomUUID()}.new")
        try {
            cleanUp()
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
            FileChannel.open(folder.toPath(), StandardOpenOption.READ).use { it.force(true) }
        } catch (failure: IOException) {
            next.delete()
            throw StoreException.Unavailable(failure.message.orEmpty())
        } finally {
            session.fill(0)
        }
    }

    /** Removes what writers left that crashed more than an hour ago: writing takes far less. */
    private fun cleanUp() {
        val before = System.currentTimeMillis() - 3_600_000
        folder.listFiles { left -> isTemporary(left.name) && left.lastModified() in 1 until before }
            ?.forEach { it.delete() }
    }

    private fun isTemporary(name: String) =
        name.startsWith("${file.name}.") && TEMPORARY.matches(name.removePrefix("${file.name}."))

    private companion object {
        /** A UUID. */
        val TEMPORARY = Regex("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[.]new")
    }
}
