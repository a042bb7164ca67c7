//! The page in HTML: everything in one file, which asks for nothing else.

use engine::Plan;
use minijinja::{Environment, Value, context};

use crate::report::charts::setting;
use crate::report::dataset::{Chart, Shown};
use crate::report::facts::{Fact, Figure, facts, figures};
use crate::report::sections::Section;
use crate::report::text::count;

const TEMPLATE: &str = "page.html";

fn table(shown: Shown) -> Value {
    let heads =
        shown.heads.into_iter().map(|head| context! { text => head.text, is_number => head.is_number });
    context! { heads => heads.collect::<Vec<Value>>(), rows => shown.rows }
}

fn chart(chart: &Chart) -> Value {
    let table = chart.data.shown();
    context! {
        name => chart.name.as_str(),
        title => chart.title.as_str(),
        svg => Value::from_safe_string(chart.svg.clone()),
        rows => count(table.len(), "row"),
        table => self::table(table),
    }
}

fn section(section: &Section) -> Value {
    let index = section.index.as_ref();
    context! {
        id => section.id,
        title => section.title.as_str(),
        paragraphs => section.paragraphs.clone(),
        index => index.map(|index| table(index.data.shown())),
        links => index.map(|index| index.links.clone()),
        charts => section.charts.iter().map(chart).collect::<Vec<Value>>(),
        is_folded => section.is_folded,
    }
}

/// What a page says.
pub struct Page<'a> {
    pub title: String,
    /// One line below it.
    pub setting: String,
    pub figures: Vec<Figure>,
    pub facts: Vec<Fact>,
    pub sections: &'a [Section],
    /// Whether the pictures and the numbers are files beside it.
    pub has_files: bool,
}

impl Page<'_> {
    /// The page of a plan.
    pub fn of<'a>(plan: &Plan, sections: &'a [Section]) -> Page<'a> {
        Page {
            title: format!("{} on {}", plan.model, plan.machine.cpu),
            setting: setting(plan),
            figures: figures(plan),
            facts: facts(plan),
            sections,
            has_files: true,
        }
    }

    /// The page in HTML.
    ///
    /// # Errors
    /// If the template asks for what there is not.
    pub fn html(self) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.add_template(TEMPLATE, include_str!("page.html"))?;
        let figures = self.figures.into_iter();
        let figures = figures.map(|figure| context! { number => figure.number, text => figure.text });
        let facts = self.facts.into_iter().map(|fact| context! { name => fact.name, text => fact.text });
        environment.get_template(TEMPLATE)?.render(context! {
            style => Value::from_safe_string(include_str!("page.css").to_string()),
            script => Value::from_safe_string(include_str!("page.js").to_string()),
            title => self.title,
            setting => self.setting,
            figures => figures.collect::<Vec<_>>(),
            facts => facts.collect::<Vec<_>>(),
            sections => self.sections.iter().map(section).collect::<Vec<_>>(),
            has_files => self.has_files,
        })
    }
}
