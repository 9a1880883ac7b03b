//! Opening a spool: what a crash left is put in order, everything that is there is checked.

use std::{
    fs::{self, File, OpenOptions},
    iter::successors,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Damage, Options, Spool, SpoolError,
    ages::Ages,
    folder::Folder,
    frame::Content,
    key::KeyFile,
    layout::{Header, segment_name},
    rechain,
    scan::{Next, Scan, Step, Walk},
    segment::Active,
    shared::{Known, Shared, View},
    since::SinceHead,
};

/// What was found in a folder.
#[derive(Debug)]
pub struct Opened {
    /// The spool. `None` if there is none yet, or if `damage` says that nothing of it can be read: then [`set_aside`] it.
    pub spool: Option<Spool>,
    /// Bytes that were never durable and were cut off: what was being written when a process or machine ended.
    pub torn_bytes: u64,
    /// What was durable and is not what it was; what is lost should be declared. If the spool's state is damaged, too,
    /// [`Spool::rechain`] must come before anything else, into a new epoch. It is not when all that was damaged was left behind while
    /// an interrupted rechain was finished.
    pub damage: Option<Damage>,
}

/// Opens the spool in a folder; [`Spool::create`] makes one where there is none. Reads all of it.
pub fn open(options: &Options) -> Result<Opened, SpoolError> {
    options.check()?;
    let folder = Folder::open(&options.dir)?;
    let numbers = folder.tidy()?;
    if numbers.is_empty() {
        return Ok(Opened { spool: None, torn_bytes: 0, damage: None });
    }
    let (old, run) = runs(&folder, &numbers)?;
    let Some(mut found) = walk(&folder, &run)? else {
        let mut damage = Damage::default();
        damage.find("no segment's header can be read".to_owned());
        return Ok(Opened { spool: None, torn_bytes: 0, damage: Some(damage) });
    };
    // The head before the key; and what readers will see.
    found.active.file.sync_all().map_err(SpoolError::io(&found.active.path))?;
    folder.sync()?;
    folder.keep_reserve()?;
    let key = KeyFile::open(&folder)?;
    let key = settle_key(&folder, key, &mut found)?;
    let damaged = !found.walk.damage.is_none();
    let torn_bytes = found.torn_bytes;
    let mut damage = found.walk.damage.clone();
    let mut spool = found.into_spool(options, folder, key, damaged);
    if !old.is_empty() {
        damage = rechain::finish(&mut spool, &old, damage)?;
    }
    Ok(Opened { spool: Some(spool), torn_bytes, damage: (!damage.is_none()).then_some(damage) })
}

/// Moves a spool of which nothing can be read out of the way, for somebody to look at; where it is now.
pub fn set_aside(options: &Options) -> Result<PathBuf, SpoolError> {
    let _folder = Folder::open(&options.dir)?;
    let name = options.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for number in 1..=99 {
        let to = options.dir.with_file_name(format!("{name}.damaged-{number}"));
        if to.exists() {
            continue;
        }
        fs::rename(&options.dir, &to).map_err(SpoolError::io(&to))?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(SpoolError::io(parent))?;
        return Ok(to);
    }
    Err(SpoolError::Options("99 damaged spools lie beside this one: look at them and remove them"))
}

/// Parts the segments into those of an epoch that is being carried over, and has not been wholly, and those of the present one.
/// What was carried over already is removed.
fn runs(folder: &Folder, numbers: &[u64]) -> Result<(Vec<u64>, Vec<u64>), SpoolError> {
    let mut begins = None;
    let mut epoch = None;
    let mut made_from = 0;
    for number in numbers {
        let Some((header, _)) = read_header(folder, *number)?.1 else { continue };
        if epoch != Some(header.epoch) {
            // The last change counts; the first epoch begins with the first segment, whoever made it.
            begins = epoch.is_some().then_some(*number);
            epoch = Some(header.epoch);
            made_from = 0;
        }
        made_from = made_from.max(header.made_from);
    }
    let begins = begins.filter(|_| made_from > 0).unwrap_or(0);
    let (mut old, mut run) = (Vec::new(), Vec::new());
    for number in numbers {
        if *number >= begins {
            run.push(*number);
        } else if *number <= made_from {
            folder.remove(*number)?;
        } else {
            old.push(*number);
        }
    }
    Ok((old, run))
}

type ReadHeader = (File, Option<(Header, u64)>);

pub(crate) fn read_header(folder: &Folder, number: u64) -> Result<ReadHeader, SpoolError> {
    let path = folder.segment(number);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(SpoolError::io(&path))?;
    let header = Header::read(&file, number).map_err(SpoolError::io(&path))?;
    Ok((file, header))
}

/// What a walk through all segments gave.
struct Found {
    walk: Walk,
    known: Vec<Known>,
    active: Active,
    ages: Ages,
    /// What follows the last head, or is there at all.
    since_head: SinceHead,
    /// Heads of the last segment.
    heads: u32,
    torn_bytes: u64,
}

/// Goes through all segments. `None` if no header can be read.
fn walk(folder: &Folder, numbers: &[u64]) -> Result<Option<Found>, SpoolError> {
    let mut walk: Option<Walk> = None;
    let mut early = Damage::default();
    let mut known: Vec<Known> = Vec::new();
    let mut ages = Ages::default();
    let mut since_head = SinceHead::default();
    let mut heads = 0_u32;
    let mut torn_bytes = 0;
    let mut active = None;
    for (index, number) in numbers.iter().enumerate() {
        let (number, path, name) = (*number, folder.segment(*number), segment_name(*number));
        let (file, header) = read_header(folder, number)?;
        if known.last().is_some_and(|last| last.number.checked_add(1) != Some(number)) {
            let damage = walk.as_mut().map_or(&mut early, |walk| &mut walk.damage);
            damage.find(format!("segments before {name} are missing"));
        }
        heads = 0;
        let header_bytes = header.as_ref().map_or(0, |(_, bytes)| *bytes);
        match (header, &mut walk) {
            (Some((header, _)), Some(walk)) => walk.header(header),
            (Some((header, _)), None) => {
                walk = Some(Walk { damage: std::mem::take(&mut early), ..Walk::new(header) });
            }
            (None, found) => {
                let damage = found.as_mut().map_or(&mut early, |walk| &mut walk.damage);
                damage.find(format!("the header of {name} is not what it should be"));
            }
        }
        let mut end = file.metadata().map_err(SpoolError::io(&path))?.len();
        let (first, head_time_ns) =
            walk.as_ref().map_or_else(Default::default, |walk| (walk.tip.next, walk.tip.head_time_ns));
        // Before a header was read, nobody knows what a frame continues.
        if let Some(walk) = &mut walk {
            // A header was durable before it had its name.
            let may_be_torn = index + 1 == numbers.len() && header_bytes > 0;
            let mut scan = Scan::new(&file, number, header_bytes, end);
            loop {
                let offset = scan.offset;
                let what = || format!("{name} at byte {offset}");
                match scan.step().map_err(SpoolError::io(&path))? {
                    None => break,
                    Some(Step::Frame(Content::Batch(spooled))) => {
                        if walk.batch(&spooled, &what) {
                            ages.add(spooled.batch.first, spooled.made_ns);
                            since_head.add(spooled.batch.count, spooled.batch.compressed.len());
                        }
                    }
                    Some(Step::Frame(Content::Head { head, .. })) => {
                        walk.head(&head, &what);
                        since_head = SinceHead::default();
                        heads = heads.saturating_add(1);
                    }
                    Some(Step::Frame(Content::Marks(changes))) => walk.changes(&changes, &what),
                    Some(Step::Gap { offset, next }) => {
                        if may_be_torn && is_torn(&file, &path, number, offset, next, end)? {
                            torn_bytes = end - offset;
                            file.set_len(offset).and_then(|()| file.sync_all()).map_err(SpoolError::io(&path))?;
                            end = offset;
                            break;
                        }
                        walk.damage.find(format!("{name} is damaged at byte {offset}"));
                    }
                }
            }
        }
        known.push(Known { number, header_bytes, bytes: end, first, head_time_ns });
        active = Some(Active { number, path, file, header_bytes, end, synced: end });
    }
    let (Some(walk), Some(active)) = (walk, active) else { return Ok(None) };
    Ok(Some(Found { walk, known, active, ages, since_head, heads, torn_bytes }))
}

/// Whether what stands at `offset` of the last segment was never durable: no frame behind it was written when it was.
fn is_torn(
    file: &File,
    path: &Path,
    number: u64,
    offset: u64,
    next: Option<Next>,
    end: u64,
) -> Result<bool, SpoolError> {
    let scan = Scan::new(file, number, offset, end);
    let mut next = next;
    while let Some(frame) = next {
        if frame.synced > offset {
            return Ok(false);
        }
        next = scan.find(frame.end).map_err(SpoolError::io(path))?;
    }
    Ok(true)
}

/// The key must be the one that the last head announced. After a crash between the sync of a head and that of the key it is the one
/// before, and moves on; or, when a whole segment became durable with its heads, as many before as those are.
fn settle_key(folder: &Folder, key: Option<KeyFile>, found: &mut Found) -> Result<KeyFile, SpoolError> {
    let announced = found.walk.tip.key;
    let Some(mut key) = key else {
        found.walk.damage.find("the head key is missing".to_owned());
        return KeyFile::create(folder);
    };
    let mut keys = successors(Some(key.key().clone()), |key| Some(key.clone().ratchet()));
    match (0..=found.heads).find(|_| keys.next().is_some_and(|key| key.public() == announced)) {
        Some(0) => key.settle()?,
        Some(behind) => key.advance(behind)?,
        None => {
            found.walk.damage.find("the head key is not the one that the last head announced".to_owned());
            found.walk.lost_end();
        }
    }
    Ok(key)
}

impl Found {
    fn into_spool(self, options: &Options, folder: Folder, key: KeyFile, damaged: bool) -> Spool {
        let Self { walk: Walk { identity, epoch, tip, marks, .. }, known, active, ages, since_head, .. } = self;
        let first = known.first().map_or(tip.next, |known| known.first);
        let closed = known.iter().map(|known| known.bytes).fold(0_u64, u64::saturating_add);
        let view = View { generation: 0, epoch, segments: known.into(), next: tip.next };
        Spool {
            shared: Arc::new(Shared::new(options.dir.clone(), view)),
            options: options.clone(),
            folder,
            identity,
            epoch,
            closed_bytes: closed.saturating_sub(active.end),
            released: first,
            released_head_ns: 0,
            since_head,
            ages,
            damaged,
            poisoned: false,
            frame: Vec::new(),
            tip,
            marks,
            active,
            key,
        }
    }
}
