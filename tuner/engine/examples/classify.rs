//! Classifies a photograph:
//! `cargo run --release -p engine --example classify -- w.safetensors cat.jpg`.

use std::error::Error;

use engine::{Model, Plan, Request, Session, Weights, image};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, photograph] = &arguments[..] else { return Err("expected WEIGHTS PHOTOGRAPH".into()) };
    let model = Model::inception_v3();
    let weights = Weights::open(weights, &model)?;
    let plan = Plan::find("bench-results", &Request::new(&model))?.unwrap_or_else(|| Plan::untuned(&model));
    let mut net = Session::builder(&model, &weights).plan(&plan).build()?;
    let output = net.run(&image::load(photograph, &model)?)?;
    for (class, probability) in output.top(5) {
        println!("{probability:.4} class {class}");
    }
    Ok(())
}
