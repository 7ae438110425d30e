//! What the parts of a build cost on the given files, by the library's own code, without cargo, base or disk.
//!
//! `cargo bench --bench parts -- FILE...` prints a line a part: its name, the file, bytes in, bytes out, the CPU
//! seconds and the wall seconds of the fastest of three passes. `sha256` is one thread; `pipeline` is everything a
//! layer goes through (tar bytes hashed, probed, deflated or stored, framed) with a compressing thread for each core.
//! With `--unpack` files are layers, and the only part is `unpack`: one thread that unpacks them and hashes what comes.
#![expect(clippy::print_stdout, reason = "a benchmark's results are its output")]

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use cargo_lambda_image::event::{Session, TaskKind};
use cargo_lambda_image::layer::gunzip::Members;
use cargo_lambda_image::layer::{Pipeline, gzip};
use cargo_lambda_image::problem::IoContext as _;
use sha2::{Digest as _, Sha256};

const PASSES: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench` for the harness that is not there.
    let (flags, files): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|argument| argument.starts_with("--"));
    if files.is_empty() {
        return Err("usage: cargo bench --bench parts -- FILE...".into());
    }
    let cores = thread::available_parallelism()?.get();
    for file in &files {
        let path = Path::new(file);
        let name = path.file_name().ok_or("a path without a name")?.to_string_lossy().into_owned();
        if flags.iter().any(|flag| flag == "--unpack") {
            report("unpack", &name, best(|| unpack(path))?);
            continue;
        }
        report("read", &name, best(|| read(path, &mut |_| {}).map(|size| (size, size)))?);
        report("sha256", &name, best(|| sha256(path))?);
        report("pipeline", &name, best(|| pipeline(path, cores))?);
    }
    Ok(())
}

/// What one pass over a file took.
struct Pass {
    bytes_in: u64,
    bytes_out: u64,
    cpu: Duration,
    wall: Duration,
}

fn report(part: &str, name: &str, pass: Pass) {
    let Pass { bytes_in, bytes_out, cpu, wall } = pass;
    println!("{part} {name} {bytes_in} {bytes_out} {:.3} {:.3}", cpu.as_secs_f64(), wall.as_secs_f64());
}

/// The pass that took the least CPU time, after one that is not counted.
fn best(mut work: impl FnMut() -> Result<(u64, u64), Box<dyn Error>>) -> Result<Pass, Box<dyn Error>> {
    work()?;
    let mut best: Option<Pass> = None;
    for _ in 0..PASSES {
        let (cpu, started) = (cpu_time()?, Instant::now());
        let (bytes_in, bytes_out) = work()?;
        let pass = Pass { bytes_in, bytes_out, cpu: cpu_time()? - cpu, wall: started.elapsed() };
        if best.as_ref().is_none_or(|best| pass.cpu < best.cpu) {
            best = Some(pass);
        }
    }
    best.ok_or_else(|| "no pass was made".into())
}

fn read(path: &Path, take: &mut dyn FnMut(&[u8])) -> Result<u64, Box<dyn Error>> {
    let mut file = File::open(path)?;
    let mut block = vec![0; gzip::BLOCK_BYTES];
    let mut size = 0;
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok(size);
        }
        take(&block[..count]);
        size += count as u64;
    }
}

fn sha256(path: &Path) -> Result<(u64, u64), Box<dyn Error>> {
    let mut hasher = Sha256::new();
    let size = read(path, &mut |bytes| hasher.update(bytes))?;
    std::hint::black_box(hasher.finalize());
    Ok((size, size))
}

fn unpack(path: &Path) -> Result<(u64, u64), Box<dyn Error>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut members = Members::new(BufReader::with_capacity(128 * 1024, file));
    let mut hasher = Sha256::new();
    let mut block = vec![0; 64 * 1024];
    let mut unpacked = 0;
    loop {
        let count = members.read(&mut block)?;
        if count == 0 {
            std::hint::black_box(hasher.finalize());
            return Ok((size, unpacked));
        }
        hasher.update(&block[..count]);
        unpacked += count as u64;
    }
}

fn pipeline(path: &Path, threads: usize) -> Result<(u64, u64), Box<dyn Error>> {
    let session = Session::silent();
    let task = session.task(TaskKind::Layer, "benchmark", None);
    let pipeline = Pipeline::new(threads, gzip::DEFAULT_LEVEL);
    let packed = pipeline.run(Counter(0), &task, &session, |tar| {
        let mut file = File::open(path).or_failed(|| format!("could not open `{}`", path.display()))?;
        io::copy(&mut file, tar).or_failed(|| format!("could not read `{}`", path.display()))?;
        Ok(())
    })?;
    Ok((packed.uncompressed_size, packed.sink.0))
}

/// Counts what it is given.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// User and system time of this process, in the kernel's ticks of 10 ms.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses that may hold spaces; utime and stime are the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
