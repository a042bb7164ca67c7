//! The rates of the convolution steps by their arithmetic intensity, below the peaks of the cores and
//! the roofs of what they read.

use engine::Plan;
use engine::util::median;
use plotters::style::FontTransform;

use crate::report::axis::{LogAxis, mark_text};
use crate::report::canvas::{
    BODY, CENTRE, Canvas, DrawError, Drawn, GREY, GRID, INK, MARGIN, RIGHT, ROOM, SMALL, TITLE, WIDTH, bold,
    colour, fit, picture, text_style, text_width, wrap,
};
use crate::report::charts::setting;
use crate::report::data::positive;
use crate::report::roofs::{self, Roof};
use crate::report::text::{count, short};
use crate::report::traffic::Work;

/// The rate that the instructions of a tier reach on all threads, in G operations a second.
pub struct Peak {
    pub tier: String,
    pub rate: f64,
}

/// The median over the problems of what was measured a core, times the threads; the lowest first.
pub fn peaks(plan: &Plan) -> Vec<Peak> {
    let conditions = plan.measurements.iter().filter_map(|record| record.conditions.as_ref());
    let mut tiers: Vec<(&String, Vec<f64>)> = Vec::new();
    for (tier, &rate) in conditions.flat_map(|c| &c.peak_gflops) {
        let Some(rate) = positive(Some(rate)) else { continue };
        match tiers.iter_mut().find(|(known, _)| *known == tier) {
            Some((_, rates)) => rates.push(rate),
            None => tiers.push((tier, vec![rate])),
        }
    }
    let peak = |(tier, rates): (&String, Vec<f64>)| {
        Some(Peak { tier: tier.clone(), rate: median(&rates)? * plan.threads as f64 })
    };
    let mut peaks: Vec<Peak> = tiers.into_iter().filter_map(peak).collect();
    peaks.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    peaks
}

/// What is known of peaks and roofs, in words.
pub fn about(plan: &Plan, peaks: &[Peak], roofs: &[Roof]) -> String {
    let clock = plan.noise.and_then(|noise| noise.clock_ghz).map(|[_, median, _]| median);
    let clock = positive(clock).map(|ghz| format!(" The cores ran at {} GHz, the median.", short(ghz)));
    let (clock, cores) = (clock.unwrap_or_default(), count(plan.threads, "core"));
    let flat = match peaks.is_empty() {
        true => format!("There is no flat roof: the plan has no measured peak.{clock}"),
        false => format!(
            "Dashed lines are the measured peaks of {cores}, the median over the problems; they limit the executed \
             rates.{clock}"
        ),
    };
    let sloped = match roofs.is_empty() {
        true => "There is no sloped roof: the plan has no measured bandwidth.".to_string(),
        false => format!(
            "Sloped lines are what {cores} read from each cache and from the memory, measured; they limit the \
             effective rates of steps that read all their bytes from there."
        ),
    };
    format!("{flat} {sloped}")
}

const HEIGHT: i32 = 470;
const LEFT: i32 = MARGIN + 66;
const LINE: i32 = 18;

/// The area of the points, left of the names of the peaks.
struct Frame {
    x: LogAxis,
    y: LogAxis,
    top: i32,
    right: i32,
}

impl Frame {
    fn at(&self, intensity: f64, rate: f64) -> (i32, i32) {
        (LEFT + self.x.at(intensity), self.bottom() - self.y.at(rate))
    }

    fn bottom(&self) -> i32 {
        self.top + HEIGHT
    }
}

pub fn draw(plan: &Plan, works: &[Work], peaks: &[Peak], roofs: &[Roof]) -> Result<String, DrawError> {
    let mut about = wrap(&setting(plan), BODY, ROOM);
    about.extend(wrap(&self::about(plan, peaks, roofs), BODY, ROOM));
    let right =
        WIDTH - MARGIN - peaks.iter().map(|peak| text_width(&name(peak), SMALL) + 8).max().unwrap_or(0);
    let rates = works.iter().flat_map(|work| [work.effective, work.executed]);
    let y = LogAxis::of(rates.chain(peaks.iter().map(|peak| peak.rate)), HEIGHT);
    let highest = peaks.last().map_or(y.ends()[1], |peak| peak.rate);
    let intensities: Vec<f64> = works.iter().map(|work| work.intensity).collect();
    let x = LogAxis::of(roofs::intensities(&intensities, roofs, highest).into_iter(), right - LEFT);
    let names = roofs::names(roofs, |roof| LEFT + x.at(y.ends()[1] / roof.rate), right);
    let rows = names.iter().map(|name| name.row + 1).max().unwrap_or(0);
    let top = MARGIN + TITLE + 8 + LINE * about.len() as i32 + 8 + roofs::ROW * rows;
    let frame = Frame { x, y, top, right };
    let legend = legend(works);
    let last = legend.last().map_or(0, |(.., line)| *line);
    picture(frame.bottom() + 80 + LINE * (last + 1) + MARGIN, |canvas| {
        canvas.title(&format!("{}: rate of the convolutions by arithmetic intensity", plan.model))?;
        for (i, line) in about.iter().enumerate() {
            let y = MARGIN + TITLE + 8 + LINE * i as i32;
            canvas.text(line, (MARGIN, y), text_style(BODY, GREY))?;
        }
        draw_axes(canvas, &frame)?;
        draw_roofs(canvas, &frame, roofs, highest)?;
        roofs::draw_names(canvas, &names, top)?;
        draw_peaks(canvas, &frame, peaks)?;
        draw_points(canvas, &frame, works)?;
        draw_legend(canvas, &legend, frame.bottom() + 66)
    })
}

fn draw_axes(canvas: &Canvas, frame: &Frame) -> Drawn {
    let (right, bottom) = (frame.right, frame.bottom());
    for mark in frame.x.marks() {
        let x = LEFT + frame.x.at(mark);
        canvas.line((x, frame.top), (x, bottom + 4), GRID)?;
        canvas.text(&mark_text(mark), (x, bottom + 14), text_style(SMALL, GREY).pos(CENTRE))?;
    }
    for mark in frame.y.marks() {
        let y = bottom - frame.y.at(mark);
        canvas.line((LEFT - 4, y), (right, y), GRID)?;
        canvas.text(&mark_text(mark), (LEFT - 8, y), text_style(SMALL, GREY).pos(RIGHT))?;
    }
    canvas.line((LEFT, frame.top), (LEFT, bottom), GREY)?;
    canvas.line((LEFT, bottom), (right, bottom), GREY)?;
    let name =
        "operations a byte of source, destination and packed weights; a multiply-add is two operations";
    canvas.text(name, ((LEFT + right) / 2, bottom + 34), text_style(BODY, GREY).pos(CENTRE))?;
    let style = text_style(BODY, GREY).pos(CENTRE).transform(FontTransform::Rotate270);
    canvas.text("G operations a second", (MARGIN + 4, (frame.top + bottom) / 2), style)
}

/// The lines of what the cores read: below the highest peak they are a roof, above it they only lead
/// to their names.
fn draw_roofs(canvas: &Canvas, frame: &Frame, roofs: &[Roof], highest: f64) -> Drawn {
    let ([left, _], [lowest, top]) = (frame.x.ends(), frame.y.ends());
    for Roof { rate, .. } in roofs {
        let intensity = |of: f64| (of / rate).max(left);
        let at = |intensity: f64| frame.at(intensity, intensity * rate);
        canvas.line(at(intensity(highest)), at(intensity(top)), GREY)?;
        canvas.line(at(intensity(lowest)), at(intensity(highest)), INK)?;
    }
    Ok(())
}

fn name(peak: &Peak) -> String {
    fit(&format!("{}: {} G/s", peak.tier, short(peak.rate)), SMALL, ROOM / 4)
}

/// Dashed lines with their names at the right.
fn draw_peaks(canvas: &Canvas, frame: &Frame, peaks: &[Peak]) -> Drawn {
    let mut free = i32::MAX;
    for peak in peaks {
        let y = frame.bottom() - frame.y.at(peak.rate);
        for x in (LEFT..frame.right - 6).step_by(12) {
            canvas.line((x, y), (x + 7, y), INK)?;
        }
        // Peaks that are close have their names one above the other.
        let at = y.min(free);
        canvas.text(&name(peak), (frame.right + 8, at), bold(text_style(SMALL, INK)))?;
        free = at - 14;
    }
    Ok(())
}

fn draw_points(canvas: &Canvas, frame: &Frame, works: &[Work]) -> Drawn {
    if works.is_empty() {
        let at = (LEFT + 20, (frame.top + frame.bottom()) / 2);
        return canvas.text("no convolution has a measured time", at, text_style(BODY, INK));
    }
    for work in works {
        let ends = [work.effective, work.executed].map(|rate| frame.at(work.intensity, rate));
        canvas.line(ends[0], ends[1], GREY)?;
    }
    for work in works {
        let fill = colour(work.view.family);
        canvas.ring(frame.at(work.intensity, work.effective), 5, fill)?;
        canvas.disc(frame.at(work.intensity, work.executed), 4, fill)?;
    }
    Ok(())
}

/// The families of the points: name, left end and line.
fn legend<'a>(works: &[Work<'a>]) -> Vec<(&'a str, i32, i32)> {
    let mut families: Vec<&str> = works.iter().map(|work| work.view.family).collect();
    families.sort_unstable();
    families.dedup();
    let (mut x, mut line) = (0, 1);
    let mut entries = Vec::new();
    for family in families {
        let width = 20 + text_width(&fit(family, BODY, ROOM / 2), BODY) + 16;
        if x + width > ROOM && x > 0 {
            (x, line) = (0, line + 1);
        }
        entries.push((family, x, line));
        x += width;
    }
    entries
}

fn draw_legend(canvas: &Canvas, legend: &[(&str, i32, i32)], top: i32) -> Drawn {
    let style = || text_style(BODY, INK);
    canvas.ring((MARGIN + 7, top), 5, INK)?;
    let effective = "effective: operations of the direct computation";
    canvas.text(effective, (MARGIN + 20, top), style())?;
    let x = MARGIN + 20 + text_width(effective, BODY) + 24;
    canvas.disc((x, top), 4, INK)?;
    canvas.text("executed: operations of the kernel; a line joins both of a step", (x + 13, top), style())?;
    for (family, x, line) in legend {
        let (x, y) = (MARGIN + x, top + LINE * line + 4);
        canvas.rectangle((x, y - 6), (x + 12, y + 6), colour(family))?;
        canvas.text(&fit(family, BODY, ROOM / 2), (x + 20, y), style())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::plan::BandwidthRecord;

    use super::*;
    use crate::report::data::steps;
    use crate::report::tests::{assert_has, plan};
    use crate::report::traffic::works;

    #[test]
    fn peaks_are_those_of_all_threads_and_their_lack_has_a_reason() {
        let plan = Plan { threads: 2, ..plan() };
        let peaks = peaks(&plan);
        assert_eq!((peaks.len(), peaks[0].tier.as_str(), peaks[0].rate), (1, "avx512", 200.0));
        let steps = steps(&plan);
        let svg = draw(&plan, &works(&steps), &peaks, &[]).expect("a chart");
        assert_has(&svg, &["avx512: 200 G/s", "no measured bandwidth"]);
        let svg = draw(&plan, &[], &[], &[]).expect("a chart");
        assert_has(&svg, &["no flat roof", "no convolution has a measured time"]);
    }

    #[test]
    fn roofs_are_what_all_threads_read_and_have_names() {
        let rates = [Some(150.0), Some(80.0), None, Some(10.0)];
        let plan = Plan { threads: 2, bandwidth: Some(BandwidthRecord::of(rates)), ..plan() };
        let (steps, roofs) = (steps(&plan), roofs::roofs(&plan));
        assert_eq!(roofs.iter().map(|roof| roof.rate).collect::<Vec<_>>(), [300.0, 160.0, 20.0]);
        let svg = draw(&plan, &works(&steps), &peaks(&plan), &roofs).expect("a chart");
        assert_has(&svg, &["L1: 300 GB/s", "L2: 160 GB/s", "memory: 20.0 GB/s", "Sloped lines"]);
        let svg = draw(&plan, &[], &[], &roofs).expect("a chart");
        assert_has(&svg, &["memory: 20.0 GB/s"]);
    }
}
