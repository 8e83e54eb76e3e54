"""Every way in which a bitstream, a codec, a picture, an archive or a job can be wrong.

Each error has a message that says what happened and what to do. They live in the lowest package so that
all three may raise them. ``exit_code`` is what the command line returns when the error ends a command.
"""

from __future__ import annotations


class LichenError(Exception):
    """Base class of all errors that lichen raises on purpose."""

    exit_code = 1


class UsageError(LichenError):
    """The request itself is wrong: an unknown codec name, a quality out of range, a missing path."""

    exit_code = 2


# --- bitstreams and codecs -----------------------------------------------------------------------


class CorruptBitstream(LichenError):
    """A bitstream is malformed: bad magic, checksum, length, header field or entropy-coded section."""


class CodecMismatch(LichenError):
    """A bitstream was written by another codec than the one asked to decode it."""


class InvalidCodec(LichenError):
    """A codec file (JSON or safetensors) is malformed, absurdly large, or fails its self-test."""


class UnknownCodec(UsageError):
    """No codec of that name is shipped, imported or registered."""


# --- sources and pictures ------------------------------------------------------------------------


class SourceUnreadable(LichenError):
    """The bytes of a source could not be read. The only cause of quarantine."""


class NotAPicture(LichenError):
    """The bytes are not those of any picture format, nor does the name claim so."""


class UnsupportedPicture(LichenError):
    """A picture that the codec path cannot represent without loss of meaning; it is stored as it is."""


class UndecodablePicture(LichenError):
    """A picture file that does not decode (truncated, damaged, or a decompression bomb); stored as it is."""


class DamagedPicture(UndecodablePicture):
    """A picture file whose data end early or contradict themselves, even if a decoder makes something of it.

    It is stored as it is: its bytes are worth more than what one decoder made of them.
    """


class PictureTimeout(UndecodablePicture):
    """A picture file whose decoding takes longer than the job allows; stored as it is."""


class DuplicateKey(UsageError):
    """Two sources of one job have the same key."""


# --- archives and stores -------------------------------------------------------------------------


class ArchiveError(LichenError):
    """Base class of what can be wrong with an archive."""


class ArchiveNotFound(ArchiveError):
    """There is no archive at this place."""

    exit_code = 2


class CorruptArchive(ArchiveError):
    """A file of the archive is missing, malformed or fails its checksum."""


class KeyNotFound(ArchiveError, KeyError):
    """The archive holds no picture under this key."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreError(ArchiveError):
    """The store refused or failed an operation."""


class MissingObject(StoreError):
    """The store holds no object under this name."""


class UnsupportedArchive(ArchiveError):
    """The archive was written in a newer format than this version of lichen reads."""


class CommitConflict(ArchiveError):
    """Another attempt committed this shard first; this attempt's files are left for ``gc``."""


class LeaseHeld(ArchiveError):
    """Another live driver works on this archive."""


class LeaseLost(ArchiveError):
    """Another driver took over while this one was out of touch; this one must stop."""


class VerificationFailed(ArchiveError):
    """What was read back is not what was written."""

    exit_code = 4


# --- jobs ----------------------------------------------------------------------------------------


class JobError(LichenError):
    """A job could not go on."""


class JobInterrupted(JobError):
    """A job was asked to stop. What it committed stays; the same command goes on with the rest."""


class TooManyFailures(JobError):
    """More shards or pictures failed than the job allows."""


class TrainingError(LichenError):
    """Training could not start or diverged."""


class NotComparable(LichenError):
    """Two rate-distortion curves have no interval in common, or one has too few points."""
