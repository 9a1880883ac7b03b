//! How fast a spool takes lines: `cargo run --release -p sigillo-spool --example append_rate -- DIR [MIB]`.
//!
//! Batches of 1,000 lines of 290 bytes, a sync every 8 batches, a head every 128; the spool is released as it fills. Prints bytes of
//! lines per second of this process's processor time and per second of the clock.

use std::{
    env,
    error::Error,
    fmt::Write,
    time::{Duration, Instant},
};

use sigillo_model::{
    block::BlockBuilder,
    ids::{Epoch, Origin, SourceId},
    record::RecordRef,
    tree,
};
use sigillo_spool::{Identity, Marks, Options, Spool};

const LINES: u64 = 1_000;
const LINE_BYTES: usize = 290;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let dir = arguments.next().ok_or("which folder?")?;
    let mib: u64 = arguments.next().map_or(Ok(512), |text| text.parse())?;
    let identity = Identity { origin: Origin::new("rate.example")?, source: SourceId::from_name("rate") };
    let epoch = Epoch::new(1);
    let mut spool = Spool::create(&Options::new(dir), identity, epoch, None, Marks::new())?;
    let mut lines = Vec::new();
    for number in 0..LINES {
        let mut line =
            format!("2026-11-23T18:00:00.{number:06}+00:00 web-1 nginx[812]: 203.0.113.{} - - ", number % 251);
        write!(
            line,
            "\"GET /shop/item/{}?ref={:x} HTTP/1.1\" 200 {}",
            number * 7919 % 10_007,
            number * 0x9e37_79b9,
            number * 31
        )?;
        while line.len() < LINE_BYTES {
            write!(line, " {:x}", (line.len() as u64 * 0x9e37_79b9 + number) % 0x1_0000)?;
        }
        line.truncate(LINE_BYTES);
        lines.push(line);
    }
    let batches = mib * (1 << 20) / (LINES * LINE_BYTES as u64);
    let mut builder = BlockBuilder::default();
    let (began, cpu) = (Instant::now(), processor());
    for batch in 0..batches {
        for line in &lines {
            builder.push(RecordRef { content: Some(line.as_bytes()), ..RecordRef::default() })?;
        }
        let place = spool.append(&mut builder, &[("file".into(), batch.to_be_bytes().to_vec().into())])?;
        if batch % 128 == 127 {
            spool.attest(batch, (0, tree::empty()))?;
        } else if batch % 8 == 7 {
            spool.sync()?;
        }
        spool.release(epoch, place.end, batch)?;
    }
    spool.sync()?;
    let mib = f64::from(u32::try_from(mib)?);
    let (elapsed, cpu) = (began.elapsed(), processor().saturating_sub(cpu));
    let rate = |time: Duration| mib / time.as_secs_f64();
    println!("{mib} MiB of lines: {:.0} MiB per second of processor time, {:.0} MiB/s", rate(cpu), rate(elapsed));
    Ok(())
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
