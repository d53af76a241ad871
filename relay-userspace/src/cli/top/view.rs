//! The figures on a screen of any size. Pure: a model in, cells out.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table};

use super::model::{Flow, Model, RuleLine, events, headline, lists, ports, rate_text};
use crate::control::api::{FateName, FeedState, TopEntry};

/// Narrower than this, only the sources are shown, and no curves.
const WIDE: u16 = 64;
/// Room for a name, a rate and a total, each with a space behind it.
const FIGURES_WIDTH: u16 = 9 + 8 + 16;
/// With fewer lines for all tables, the feeds have none.
const TABLES_WITH_FEEDS: u16 = 12;

const ASCII_BARS: bar::Set<'_> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "+",
    five_eighths: "+",
    half: "=",
    three_eighths: "-",
    one_quarter: ".",
    one_eighth: ".",
    empty: " ",
};

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) interval: Duration,
    /// Nothing beyond ASCII.
    pub(super) ascii: bool,
}

pub(super) fn render(frame: &mut Frame<'_>, model: &Model, look: &Look) {
    let flows = 3 + model.flows.len() as u16;
    let tables = frame.area().height.saturating_sub(2 + flows + 1);
    let [head, flow, tops, rules, feeds, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(flows),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(feeds_height(tables, model)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    render_head(frame, head, model);
    render_flows(frame, flow, model, look);
    render_tops(frame, tops, model);
    render_rules(frame, rules, model);
    render_feeds(frame, feeds, model);
    let every = humantime::format_duration(look.interval);
    frame.render_widget(Line::from(format!("q quit   every {every}")).style(dim()), foot);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn colour(fate: FateName) -> Style {
    Style::new().fg(match fate {
        FateName::Dropped => Color::Red,
        FateName::Observed => Color::Cyan,
        FateName::Limited => Color::Yellow,
    })
}

fn health(state: FeedState) -> Style {
    match state {
        FeedState::Good => Style::new(),
        FeedState::Failing => Style::new().fg(Color::Yellow),
        FeedState::Empty | FeedState::Ended => Style::new().fg(Color::Red),
    }
}

fn render_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let first = match &model.status {
        Some(status) => Line::from(headline(status)).style(bold()),
        None => Line::from("Postern").style(bold()),
    };
    let second = match (&model.trouble, &model.status) {
        (Some(trouble), _) => Line::from(trouble.as_str())
            .style(bold().fg(Color::Red).add_modifier(Modifier::REVERSED)),
        (None, Some(status)) => Line::from(lists(status)),
        (None, None) => Line::from("asking the edge"),
    };
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

fn render_flows(frame: &mut Frame<'_>, area: Rect, model: &Model, look: &Look) {
    let curves = area.width >= WIDE;
    let [figures, curve] =
        Layout::horizontal([Constraint::Length(FIGURES_WIDTH), Constraint::Fill(1)]).areas(area);
    let figures = if curves { figures } else { area };
    let widths = [Constraint::Length(8), Constraint::Length(7), Constraint::Fill(1)];
    let rows = model.flows.iter().map(|flow| {
        let total = Cell::from(Line::from(flow.total.to_string()).right_aligned());
        let rate = Cell::from(Line::from(rate_text(flow.per_s)).right_aligned());
        Row::new([Cell::from(flow.name), rate, total])
    });
    let header = heading(["PACKETS", "/S", "TOTAL"]);
    frame.render_widget(Table::new(rows, widths).header(header), figures);
    if curves {
        // Below the heading, a line for each flow, with a space before it.
        let lines = (area.y + 1..area.bottom()).zip(&model.flows);
        for (y, flow) in lines {
            let line = Rect { x: curve.x + 1, y, width: curve.width.saturating_sub(1), height: 1 };
            render_curve(frame, line, flow, look);
        }
    }
    let below = area.y.saturating_add(1 + model.flows.len() as u16);
    for (y, text) in (below..area.bottom()).zip([events(model), ports(&model.top)]) {
        frame.render_widget(Line::from(text), Rect { y, height: 1, ..area });
    }
}

/// Newest at the right, as time goes.
fn render_curve(frame: &mut Frame<'_>, area: Rect, flow: &Flow, look: &Look) {
    let shown: Vec<u64> = flow.history.iter().take(usize::from(area.width)).copied().collect();
    let bars = if look.ascii { ASCII_BARS } else { bar::NINE_LEVELS };
    let curve = Sparkline::default()
        .data(shown)
        .direction(ratatui::widgets::RenderDirection::RightToLeft)
        .bar_set(bars);
    frame.render_widget(curve, area);
}

fn render_tops(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let area = below_a_gap(area);
    if area.width < WIDE {
        return render_top(frame, area, "SOURCE", &model.top.sources);
    }
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
    let [left, right] = halves.areas(area);
    render_top(frame, left, "SOURCE", &model.top.sources);
    render_top(frame, right, "NETWORK", &model.top.networks);
}

fn render_top(frame: &mut Frame<'_>, area: Rect, title: &'static str, entries: &[TopEntry]) {
    let widths =
        [Constraint::Fill(1), Constraint::Length(8), Constraint::Length(6), Constraint::Length(4)];
    let rows = entries.iter().map(|entry| {
        Row::new([
            Cell::from(entry.what.as_str()),
            Cell::from(entry.fate.to_string()).style(colour(entry.fate)),
            Cell::from(Line::from(rate_text(Some(entry.per_s))).right_aligned()),
            Cell::from(Line::from(format!("{:.0}%", entry.percent)).right_aligned()),
        ])
    });
    let header = heading([title, "FATE", "/S", "%"]);
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

fn render_rules(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let area = below_a_gap(area);
    let wide = area.width >= WIDE;
    let observed = wide && model.rules.iter().any(|rule| rule.observed > 0);
    let mut widths = vec![Constraint::Fill(1), Constraint::Length(7), Constraint::Length(11)];
    let mut titles = vec!["RULE", "/S", "HITS"];
    if observed {
        widths.push(Constraint::Length(11));
        titles.push("OBSERVED");
    }
    if wide {
        widths.push(Constraint::Length(20));
        titles.push("LAST HIT");
    }
    let rows = model.rules.iter().map(|rule| rule_row(rule, observed, wide));
    frame.render_widget(Table::new(rows, widths).header(heading(titles)), area);
}

fn rule_row(rule: &RuleLine, observed: bool, wide: bool) -> Row<'_> {
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let mut cells = vec![
        Cell::from(rule.rule.as_str()),
        right(rate_text(rule.per_s)),
        right(rule.packets.to_string()),
    ];
    cells.extend(observed.then(|| right(rule.observed.to_string())));
    let last_hit = rule.last_hit.map_or_else(|| "-".to_owned(), |at| at.to_string());
    cells.extend(wide.then(|| Cell::from(last_hit)));
    Row::new(cells)
}

/// The feeds take what they need, and at most a third of the tables; of few lines, none.
fn feeds_height(tables: u16, model: &Model) -> u16 {
    let feeds = u16::try_from(model.feeds.len()).unwrap_or(u16::MAX);
    if feeds == 0 || tables < TABLES_WITH_FEEDS {
        return 0;
    }
    // A gap and the heading stand above them.
    feeds.saturating_add(2).min(tables / 3 + 1)
}

fn render_feeds(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    if area.height == 0 {
        return;
    }
    let area = below_a_gap(area);
    let wide = area.width >= WIDE;
    let shown = usize::from(area.height.saturating_sub(1)).min(model.feeds.len());
    let title = match model.feeds.len() {
        all if shown < all => format!("FEED ({shown} of {all})"),
        _ => "FEED".to_owned(),
    };
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let mut widths = vec![Constraint::Fill(1), Constraint::Length(7), Constraint::Length(9)];
    let mut header = vec![Cell::from(title), Cell::from("STATE"), right("IN FORCE".to_owned())];
    if wide {
        widths.push(Constraint::Length(7));
        header.push(right("/S".to_owned()));
    }
    widths.push(Constraint::Length(11));
    header.push(right("HITS".to_owned()));
    let rows = model.feeds.iter().map(|feed| {
        let mut cells = vec![
            Cell::from(feed.name.as_str()),
            Cell::from(feed.state.name()).style(health(feed.state)),
            right(feed.in_force.to_string()),
        ];
        cells.extend(wide.then(|| right(rate_text(feed.per_s))));
        cells.push(right(feed.hits.to_string()));
        Row::new(cells)
    });
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).style(bold())), area);
}

/// Titles over what they name: figures stand at the right of their columns.
fn heading(titles: impl IntoIterator<Item = &'static str>) -> Row<'static> {
    let cells = titles.into_iter().map(|title| {
        let line = Line::from(title);
        let figure = matches!(title, "/S" | "TOTAL" | "%" | "HITS" | "OBSERVED");
        Cell::from(if figure { line.right_aligned() } else { line })
    });
    Row::new(cells).style(bold())
}

/// Where there is room for lines below it, a line is left free.
fn below_a_gap(area: Rect) -> Rect {
    let gap = u16::from(area.height > 3);
    Rect { y: area.y + gap, height: area.height - gap, ..area }
}
