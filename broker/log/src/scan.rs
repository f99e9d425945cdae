//! Walking the batches of a segment file: header after header, a block at a time.
//!
//! What is in the page cache is read without leaving the task. Never: more memory than a block and one batch, a look
//! behind the end it was given.

use std::{io, sync::Arc};

use bytes::Bytes;
use gracchus_core::record::{BatchError, BatchHeader, HEADER_LENGTH};
use gracchus_env::File;

/// Enough to find a batch between two index entries.
pub(crate) const LOOKUP_BLOCK: usize = 4 << 10;
/// For walks over a whole segment.
pub(crate) const WALK_BLOCK: usize = 256 << 10;

/// A batch header and where its batch begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    pub(crate) header: BatchHeader,
    pub(crate) position: u64,
}

impl Located {
    /// The byte behind the batch.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.total_length() as u64
    }
}

/// What comes next in the file.
#[derive(Debug)]
pub(crate) enum Step {
    /// A batch that lies wholly within bounds; only its header has been looked at.
    Batch(Located),
    /// The walk has reached its end, and a batch ends there too.
    End,
    /// No batch begins here.
    Bad(BatchError),
}

/// A walk over `position .. end` of one file.
#[derive(Debug)]
pub(crate) struct BatchScan {
    file: Arc<dyn File>,
    position: u64,
    end: u64,
    block_size: usize,
    block_start: u64,
    block: Bytes,
}

impl BatchScan {
    /// Begins at `position`, where a batch must begin; nothing at or behind `end` is looked at.
    pub(crate) fn new(file: Arc<dyn File>, position: u64, end: u64, block_size: usize) -> Self {
        Self { file, position, end, block_size, block_start: position, block: Bytes::new() }
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch's header. After [`Step::Bad`] or [`Step::End`] the walk stays where it is.
    pub(crate) async fn next(&mut self) -> io::Result<Step> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(Step::End);
        }
        let bytes = self.at(self.position, HEADER_LENGTH.min(left)).await?;
        let header = match BatchHeader::parse(&bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Step::Bad(error)),
        };
        if header.total_length() > left {
            return Ok(Step::Bad(BatchError::Incomplete { have: left, need: header.total_length() }));
        }
        let located = Located { header, position: self.position };
        self.position = located.end();
        Ok(Step::Batch(located))
    }

    /// All bytes of a batch that [`BatchScan::next`] returned; fewer if the file has been cut meanwhile.
    pub(crate) async fn bytes(&mut self, batch: &Located) -> io::Result<Bytes> {
        self.at(batch.position, batch.header.total_length()).await
    }

    /// `length` bytes at `position`, fewer where the file ends.
    async fn at(&mut self, position: u64, length: usize) -> io::Result<Bytes> {
        if let Some(held) = self.held(position, length) {
            return Ok(held);
        }
        let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        let wanted = self.block_size.max(length).min(left);
        self.block = match self.file.read_cached(position, wanted) {
            Some(block) => block,
            None => self.file.read_at(position, wanted).await?,
        };
        self.block_start = position;
        Ok(self.block.slice(..length.min(self.block.len())))
    }

    fn held(&self, position: u64, length: usize) -> Option<Bytes> {
        let from = usize::try_from(position.checked_sub(self.block_start)?).ok()?;
        (from + length <= self.block.len()).then(|| self.block.slice(from..from + length))
    }
}
