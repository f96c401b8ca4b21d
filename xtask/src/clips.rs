//! `cargo xtask clips`: short clips of video for the example `motion`, in `target/clips`.
//!
//! Debian's ffmpeg draws them from its own sources, encodes each as real video (H.264 or MPEG-4, in
//! a container), and decodes that again: to JPEGs one behind the other (`NAME.mjpeg`), and to grey
//! pixels (`NAME.grey`), once from the video and once from the JPEGs (`NAME.decoded`, for tests to
//! compare with). A still scene with a box in it that moves at known times: `NAME.json` says when.
//!
//! What is up to date is not made again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::process::{self, say};
use crate::stamp::Stamp;
use crate::workspace::Workspace;

/// Pictures a second, in all clips.
const RATE: u32 = 25;

/// Pixels the box moves from one picture to the next.
const STEP: u32 = 8;

/// One clip.
struct Clip {
    name: &'static str,
    /// ffmpeg's words for what does not move.
    scene: &'static str,
    /// Width and height.
    size: (u32, u32),
    frames: u32,
    /// Side of the box.
    side: u32,
    /// From which picture to which the box moves: both differ from the one before.
    moves: &'static [(u32, u32)],
    /// How it is encoded, and the container.
    encoder: &'static [&'static str],
    container: &'static str,
}

const H264: &[&str] = &["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-g", "50"];
const MPEG4: &[&str] = &["-c:v", "mpeg4", "-q:v", "3", "-g", "50"];

const CLIPS: [Clip; 4] = [
    Clip {
        name: "once",
        scene: "smptebars",
        size: (320, 240),
        frames: 100,
        side: 96,
        moves: &[(26, 44)],
        encoder: H264,
        container: "mp4",
    },
    Clip {
        name: "twice",
        scene: "mandelbrot=start_scale=0.5:end_scale=0.5",
        size: (352, 288),
        frames: 120,
        side: 112,
        moves: &[(11, 22), (70, 83)],
        encoder: H264,
        container: "mkv",
    },
    Clip {
        name: "still",
        scene: "pal75bars",
        size: (160, 120),
        frames: 60,
        side: 32,
        moves: &[],
        encoder: MPEG4,
        container: "avi",
    },
    Clip {
        name: "last",
        scene: "color=c=0x406080",
        size: (200, 152),
        frames: 50,
        side: 48,
        moves: &[(34, 49)],
        encoder: MPEG4,
        container: "avi",
    },
];

/// Makes the clips.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("clips takes no arguments, and got `{argument}`");
    }
    let folder = workspace.root().join("target/clips");
    fs::create_dir_all(&folder)?;
    process::provide(("ffmpeg", "-version"), "ffmpeg")?;
    // Other releases encode otherwise.
    let version = process::output_of(Command::new("ffmpeg").arg("-version"))?;
    let recipe = version.lines().next().unwrap_or_default();
    let inputs = [workspace.root().join("xtask/src/clips.rs")];
    for clip in &CLIPS {
        let stamp = Stamp::new(&folder, clip.name, recipe, &inputs)?;
        if !stamp.is_current(&clip.file(&folder, "json")) {
            say(&format!("clips: {}", clip.name));
            clip.make(&folder).with_context(|| format!("clip {}", clip.name))?;
            stamp.save()?;
        }
    }
    Ok(())
}

impl Clip {
    fn file(&self, folder: &Path, ending: &str) -> PathBuf {
        folder.join(format!("{}.{ending}", self.name))
    }

    fn make(&self, folder: &Path) -> Result<()> {
        let (width, height) = self.size;
        let video = self.file(folder, self.container);
        let jpegs = self.file(folder, "mjpeg");
        let join = if self.scene.contains('=') { ':' } else { '=' };
        let scene = format!("{}{join}size={width}x{height}:rate={RATE}", self.scene);
        let side = self.side;
        let mover = format!("color=c=white:size={side}x{side}:rate={RATE}");
        let across = format!("[0][1]overlay=x='{}':y={}", self.place(), (height - side) / 2);
        let frames = self.frames.to_string();
        let mut draw = ffmpeg(&["-f", "lavfi", "-i", &scene, "-f", "lavfi", "-i", &mover]);
        draw.args(["-filter_complex", &across, "-frames:v", &frames, "-pix_fmt", "yuv420p"]);
        process::run(draw.args(self.encoder).arg(&video))?;
        let mut cut = ffmpeg(&["-i"]);
        cut.arg(&video).args(["-c:v", "mjpeg", "-q:v", "4", "-f", "mjpeg"]);
        process::run(cut.arg(&jpegs))?;
        for (from, to) in [(&video, "grey"), (&jpegs, "decoded")] {
            let mut grey = ffmpeg(&["-i"]);
            grey.arg(from).args(["-f", "rawvideo", "-pix_fmt", "gray"]);
            process::run(grey.arg(self.file(folder, to)))?;
        }
        let truth = json!({
            "width": width, "height": height, "frames": self.frames, "moves": self.moves,
        });
        Ok(fs::write(self.file(folder, "json"), truth.to_string())?)
    }

    /// Where the box is in a picture, as ffmpeg computes it. Of its number releases differ; its
    /// time is certain.
    fn place(&self) -> String {
        let n = format!("round(t*{RATE})");
        let mut place = STEP.to_string();
        for (first, last) in self.moves {
            let before = first - 1;
            place.push_str(&format!("+{STEP}*(min(max({n},{before}),{last})-{before})"));
        }
        place
    }
}

/// ffmpeg, silent but for errors.
fn ffmpeg(words: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]).args(words).stdin(Stdio::null());
    command
}
