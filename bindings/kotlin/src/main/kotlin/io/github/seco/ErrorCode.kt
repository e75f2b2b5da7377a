package io.github.seco

/** The stable number of this kind of error, 1 to 11: for logs and reports. */
val SecoException.code: Int
    get() = when (this) {
        is SecoException.InvalidConfiguration -> 1
        is SecoException.WrongInputSize -> 2
        is SecoException.Network -> 3
        is SecoException.Timeout -> 4
        is SecoException.Busy -> 5
        is SecoException.Refused -> 6
        is SecoException.UntrustedServer -> 7
        is SecoException.IncompatibleServer -> 8
        is SecoException.Storage -> 9
        is SecoException.Closed -> 10
        is SecoException.TokenRefused -> 11
    }
