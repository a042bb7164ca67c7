//! Lists of convolutions: one shape a line, how often it occurs as `*N`, comments behind `#`.

use std::path::Path;

use engine::util::bounded::{self, Limit};
use kernels::{Conv, Problem};

use crate::cli::Failure;

/// A convolution of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub conv: Conv,
    /// How often it occurs.
    pub count: usize,
}

impl Listed {
    pub fn problem(&self) -> Problem {
        Problem::Conv(self.conv.clone())
    }
}

/// More than the shapes of any network.
const MOST: Limit = Limit { of: "a list of shapes", mib: 1 };

/// How often a shape may occur.
const MOST_OFTEN: usize = 10_000;

/// Reads a list, which may begin with a byte order mark; shapes that come twice are one, and all
/// take `batch` images where that is given.
pub fn read(path: &Path, batch: Option<usize>) -> Result<Vec<Listed>, Failure> {
    let file = path.display();
    let bytes = bounded::read(path, MOST).map_err(|error| format!("{file}: cannot read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{file}: found bytes that are no text"))?;
    let mut list: Vec<Listed> = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        if content.trim().is_empty() {
            continue;
        }
        let wrong = |reason| format!("{file}: line {}: {reason}", index + 1);
        let Listed { mut conv, count } = parse(content).map_err(wrong)?;
        conv.batch = batch.unwrap_or(conv.batch);
        match list.iter_mut().find(|known| known.conv == conv) {
            Some(known) => known.count += count,
            None => list.push(Listed { conv, count }),
        }
    }
    if list.is_empty() {
        let expected = "expected one a line like n1h17w17c768k192r1s7 *4";
        return Err(format!("{file}: found no shape, {expected}").into());
    }
    Ok(list)
}

fn parse(line: &str) -> Result<Listed, String> {
    // A count may follow its shape without a blank.
    let line = line.replace('*', " *");
    let mut words = line.split_whitespace();
    let shape = words.next().unwrap_or_default();
    let conv = shape.parse().map_err(|error| format!("{error}"))?;
    let count = match words.next() {
        None => 1,
        Some(word) => {
            let number = word.strip_prefix('*').and_then(|number| number.parse().ok());
            let number = number.filter(|count| (1..=MOST_OFTEN).contains(count));
            number.ok_or_else(|| format!("found `{word}`, expected *N with N from 1 to {MOST_OFTEN}"))?
        }
    };
    match words.next() {
        None => Ok(Listed { conv, count }),
        Some(word) => Err(format!("found `{word}`, expected the end of the line or a comment behind #")),
    }
}

#[cfg(test)]
mod tests {
    use engine::Model;
    use engine::network::Graph;
    use kernels::PoolKind;

    use super::*;

    fn shipped(name: &str) -> Vec<Listed> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shapes").join(format!("{name}.txt"));
        read(&path, None).expect("a list")
    }

    /// Convolutions, and millions of multiply-adds.
    fn size(list: &[Listed]) -> (usize, u64) {
        let work = list.iter().map(|listed| listed.conv.multiply_adds() * listed.count as u64);
        (list.iter().map(|listed| listed.count).sum(), work.sum::<u64>() / 1_000_000)
    }

    #[test]
    fn shipped_lists_have_the_convolutions_and_the_work_of_their_papers() {
        assert_eq!(size(&shipped("inception_v3")), (94, 5711));
        // 13 of 16 layers; the 19.6 billion of VGG-19 less its three more layers.
        assert_eq!(size(&shipped("vgg16")), (13, 15_346));
        // 50 layers less the dense one, and four projections; "3.8 billion".
        assert_eq!(size(&shipped("resnet50")).0, 53);
        assert!((3_750..3_900).contains(&size(&shipped("resnet50")).1));
        // Three before nine inceptions of six; "1.5 billion" and some.
        assert_eq!(size(&shipped("googlenet")).0, 57);
        assert!((1_500..1_600).contains(&size(&shipped("googlenet")).1));
    }

    #[test]
    fn the_list_of_inception_v3_is_that_of_the_model() {
        let graph = Graph::new(&Model::inception_v3().with_classes(None), 1, PoolKind::Average);
        let problems = graph.problems().into_iter();
        let convolutions = problems.filter(|(problem, _)| matches!(problem, Problem::Conv(_)));
        let bare = |text: String| text.split(':').next().unwrap_or_default().to_string();
        let model: Vec<(String, usize)> =
            convolutions.map(|(problem, steps)| (bare(problem.to_string()), steps.len())).collect();
        let list = shipped("inception_v3").into_iter().map(|l| (bare(l.conv.to_string()), l.count));
        assert_eq!(list.collect::<Vec<_>>(), model);
    }

    #[test]
    fn lines_are_shapes_counts_and_comments_and_others_are_refused_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list");
        let of = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            read(&path, Some(2)).map_err(|error| error.to_string())
        };
        let list = of("\u{feff}# a\n\nn1h9w9c16k24r3s3*2 # b\n n1h9w9c16k24r1s1\nn1h9w9c16k24r3s3same *1\n")
            .expect("a list");
        let counts: Vec<(usize, usize)> = list.iter().map(|l| (l.conv.batch, l.count)).collect();
        assert_eq!(counts, [(2, 3), (2, 1)]);
        for (text, parts) in [
            ("", "found no shape"),
            ("\nn1h9w9c16k24r3s3 2", "line 2: found `2`, expected *N"),
            ("n1h9w9c16k24r3s3 *0", "line 1: found `*0`"),
            ("n1h9w9c16k24r3s3 *2 x", "line 1: found `x`"),
            ("n1h9w9c16k24r3s3*2*3", "line 1: found `*3`"),
            ("n1h9w9c16k24r3s3* 2", "line 1: found `*`"),
            ("n1h9w9c16k24r3", "line 1: shape"),
        ] {
            let error = of(text).expect_err(text);
            assert!(error.contains(parts), "{error}");
        }
    }
}
