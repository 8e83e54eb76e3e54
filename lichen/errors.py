"""Every way in which a bitstream, a codec, a picture, an archive or a job can be wrong.

The message of an error says what happened and what to do; the docstring of its class says it in general. ``code`` never
changes, for programs: with ``--json`` the command line prints it (docs/errors.md lists all). ``exit_code`` is what the
command line returns when the error ends a command.
"""

from __future__ import annotations

from typing import ClassVar


class LichenError(Exception):
    """Base class of all errors that lichen raises on purpose. Catch it to catch every one of them."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class UsageError(LichenError):
    """The request itself is wrong: a setting out of range, a missing path. Correct it as the message says."""

    code = "usage"
    exit_code = 2


# --- bitstreams and codecs -----------------------------------------------------------------------


class CorruptBitstream(LichenError):
    """A bitstream is malformed: magic, checksum, length, header or an entropy-coded section. Take another copy."""

    code = "corrupt-bitstream"


class CodecMismatch(LichenError):
    """A bitstream was written by another codec than the one asked to decode it. Load the codec that wrote it."""

    code = "codec-mismatch"


class InvalidCodec(LichenError):
    """A codec file is malformed, absurdly large, or fails its self-test. Install, import or export the codec again."""

    code = "invalid-codec"


class UnknownCodec(UsageError):
    """No codec of that name is shipped, imported or registered. ``lichen models`` lists those that are."""

    code = "unknown-codec"


# --- sources and pictures ------------------------------------------------------------------------


class SourceUnreadable(LichenError):
    """The bytes of a source could not be read: the only cause of quarantine. Mend the source, and run the job again."""

    code = "source-unreadable"


class NotAPicture(LichenError):
    """The bytes are those of no picture format. Such files are named and left out; ``--store-others`` keeps them."""

    code = "not-a-picture"


class UnsupportedPicture(LichenError):
    """The codec path cannot represent the picture without loss of meaning. Its bytes are kept; nothing to do."""

    code = "unsupported-picture"


class UndecodablePicture(LichenError):
    """A picture file does not decode: it is truncated, damaged, or a decompression bomb. Its bytes are kept; look for a
    better copy."""

    code = "undecodable-picture"


class DamagedPicture(UndecodablePicture):
    """A picture file's data end early or contradict themselves, even if a decoder makes something of them.

    Its bytes are kept as they are, being worth more than what one decoder made of them. Look for a better copy.
    """

    code = "damaged-picture"


class PictureTimeout(UndecodablePicture):
    """Decoding a picture file takes longer than the job allows. Its bytes are kept; to wait, raise its timeout."""

    code = "picture-timeout"


class DuplicateKey(UsageError):
    """Two sources have the same key. Choose ``on_duplicate`` or ``on_collision``, or name keys in a manifest."""

    code = "duplicate-key"


# --- archives and stores -------------------------------------------------------------------------


class ArchiveError(LichenError):
    """Base class of what can be wrong with an archive. Catch it to catch all of that."""

    code = "archive"


class ArchiveNotFound(ArchiveError):
    """There is no archive at this place, or not this snapshot of it. Check the address, or ``lichen compress``."""

    code = "archive-not-found"
    exit_code = 2


class CorruptArchive(ArchiveError):
    """A file of the archive is missing, malformed or fails its checksum.

    ``lichen verify`` names everything that is wrong. Bring the file back from a copy, or run the job of its sources
    again, which makes what is lost anew.
    """

    code = "corrupt-archive"


class KeyNotFound(ArchiveError, KeyError):
    """The archive holds no picture under this key. ``lichen ls`` lists the keys."""

    code = "key-not-found"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreError(ArchiveError):
    """The store refused or failed an operation. Check address, rights, space and network, and try again."""

    code = "store"


class MissingObject(StoreError):
    """The store holds no object under this name. If the archive names it, ``lichen verify`` tells what is affected."""

    code = "missing-object"


class UnsupportedArchive(ArchiveError):
    """The archive was written in a newer format than this version of lichen reads. Install a newer version."""

    code = "unsupported-archive"


class CommitConflict(ArchiveError):
    """Another attempt committed this shard first. Nothing is to be done; ``lichen gc`` sweeps this attempt's files."""

    code = "commit-conflict"


class LeaseHeld(ArchiveError):
    """Another live driver works on this archive. Wait for it, or until its lease runs out if it is dead."""

    code = "lease-held"


class LeaseLost(ArchiveError):
    """Another driver took over while this one was out of touch. Let that one work; the job is in its hands."""

    code = "lease-lost"


class VerificationFailed(ArchiveError):
    """What was read back is not what was written. Keep the originals; find out if memory, disk or GPU is bad."""

    code = "verification-failed"
    exit_code = 4


# --- jobs ----------------------------------------------------------------------------------------


class JobError(LichenError):
    """A job could not go on. What it committed stays; the same command goes on with the rest."""

    code = "job"


class JobInterrupted(JobError):
    """A job was asked to stop. What it committed stays; the same command goes on with the rest."""

    code = "interrupted"


class TooManyFailures(JobError):
    """A shard failed more often than the job allows. Mend what the message names; the same command goes on."""

    code = "too-many-failures"


class TrainingError(LichenError):
    """Training could not start or diverged. The message names the pictures or the setting to change."""

    code = "training"


class NoTrainingPictures(UsageError, TrainingError):
    """The sources of a training do not exist, or hold nothing. Name folders, tar files or prefixes with pictures."""

    code = "no-training-pictures"


class NotComparable(LichenError):
    """Two rate-distortion curves have no interval in common, or one has too few points. Measure more qualities."""

    code = "not-comparable"
