//! A document as a list of blocks, written as a page that needs nothing else, or as Markdown.

use std::fmt::Write as _;

use seco_tools::check::html::{escape, whole};

/// A piece of it.
pub enum Block {
    Heading(String),
    Text(String),
    Table(Table),
    Figure(Figure),
    Code(String),
}

/// The first column is text, the others are figures. An empty cell was not measured.
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A drawing with a name for its file.
pub struct Figure {
    pub name: String,
    pub caption: String,
    pub svg: String,
}

const STYLE: &str = include_str!("style.css");

/// As a page: styles and drawings are in it.
pub fn html(title: &str, blocks: &[Block]) -> String {
    let mut body =
        format!("<header><p class=\"kind\">seco bench paper</p><h1>{}</h1></header>\n", escape(title));
    for block in blocks {
        let _ = match block {
            Block::Heading(text) => writeln!(body, "<h2>{}</h2>", escape(text)),
            Block::Text(text) => writeln!(body, "<p>{}</p>", escape(text)),
            Block::Code(text) => writeln!(body, "<pre><code>{}</code></pre>", escape(text)),
            Block::Figure(figure) => {
                writeln!(
                    body,
                    "<figure>{}<figcaption>{}</figcaption></figure>",
                    figure.svg,
                    escape(&figure.caption)
                )
            }
            Block::Table(table) => writeln!(body, "{}", table.html()),
        };
    }
    whole(title, STYLE, &body)
}

/// As Markdown, with drawings as files in `figures`.
pub fn markdown(title: &str, blocks: &[Block]) -> String {
    let mut text = format!("# {title}\n");
    for block in blocks {
        text += "\n";
        let _ = match block {
            Block::Heading(heading) => writeln!(text, "## {heading}"),
            Block::Text(paragraph) => writeln!(text, "{paragraph}"),
            Block::Code(code) => writeln!(text, "```\n{code}\n```"),
            Block::Figure(figure) => writeln!(text, "![{}](figures/{}.svg)", figure.caption, figure.name),
            Block::Table(table) => {
                let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
                text += &line(&table.head);
                text += &format!("|---{}|\n", "|---:".repeat(table.head.len().saturating_sub(1)));
                table.rows.iter().for_each(|row| text += &line(row));
                Ok(())
            }
        };
    }
    text
}

impl Table {
    fn html(&self) -> String {
        let cells = |kind: &str, cells: &[String]| {
            let cell = |(i, cell): (usize, &String)| {
                let class = if i == 0 { "" } else { " class=\"n\"" };
                format!("<{kind}{class}>{}</{kind}>", escape(cell))
            };
            cells.iter().enumerate().map(cell).collect::<String>()
        };
        let rows: String = self.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
        format!(
            "<div class=\"wide\"><table><thead><tr>{}</tr></thead><tbody>\n{rows}</tbody></table></div>",
            cells("th", &self.head)
        )
    }
}
