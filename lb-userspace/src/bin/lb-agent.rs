//! x
#[path = "lb-agent/object.rs"]
mod object;

fn main() {
    println!("{} bytes", object::OBJECT.len());
}
