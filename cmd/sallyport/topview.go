package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/sallyport/sallyport/internal/daemon"
)

// topServer is what the terminal view asks. Its functions block until there is an answer.
type topServer struct {
	now      func() (daemon.LiveNow, error)
	sessions func(daemon.LiveQuery) (daemon.LiveSessions, error)
	limits   func() (daemon.LiveLimits, error)
	end      func(id uint64) error
	slow     func(id uint64, rate string) error
}

// The views.
const (
	viewSessions = iota
	viewUsers
	viewRefusals
	views
)

// What a line is asked for, at the bottom.
const (
	askNothing = iota
	askFilter
	askRate
	askEnd // y or anything else
)

// topModel is the terminal view: bubbletea gives it keys and answers, one after the other.
type topModel struct {
	server        topServer
	query         daemon.LiveQuery
	view          int
	now           daemon.LiveNow
	page          daemon.LiveSessions
	limits        daemon.LiveLimits // of the view of users
	chosen        uint64            // the session; 0: the first
	asking        int
	of            uint64 // the session that is asked about
	typed         string
	said          string // how the last deed went
	width, height int
}

// Answers.
type (
	topTick   time.Time
	topAnswer struct {
		now    daemon.LiveNow
		page   daemon.LiveSessions
		limits daemon.LiveLimits
		err    error
	}
	topDone struct {
		text string
		err  error
	}
)

func newTopModel(s topServer, q daemon.LiveQuery) topModel {
	return topModel{server: s, query: q, width: 80, height: 24}
}

// Init implements [tea.Model].
func (m topModel) Init() tea.Cmd { return m.fetch() }

// mostUserSessions is of how many sessions the view of users is made.
const mostUserSessions = 10_000

// fetch asks the server for what the view shows.
func (m topModel) fetch() tea.Cmd {
	q, server, all := m.query, m.server, m.view == viewUsers
	q.Limit = max(1, m.height)
	if all {
		q.Limit, q.Sort = 1000, "oldest" // an order that holds from one page to the next
	}
	return func() tea.Msg {
		a := topAnswer{}
		if a.now, a.err = server.now(); a.err != nil {
			return a
		}
		if a.page, a.err = server.sessions(q); a.err != nil {
			return a
		}
		for all && len(a.page.Sessions) < min(a.page.Matched, mostUserSessions) {
			q.Offset = len(a.page.Sessions)
			more, err := server.sessions(q)
			if err != nil || len(more.Sessions) == 0 {
				a.err = err
				return a
			}
			a.page.Sessions = append(a.page.Sessions, more.Sessions...)
		}
		if all {
			a.limits, a.err = server.limits()
		}
		return a
	}
}

// Update implements [tea.Model].
func (m topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topTick:
		return m, m.fetch()
	case topAnswer:
		if msg.err != nil {
			m.said = msg.err.Error()
		} else {
			m.now, m.page, m.limits = msg.now, msg.page, msg.limits
		}
		return m, tea.Tick(time.Second, func(t time.Time) tea.Msg { return topTick(t) })
	case topDone:
		if m.said = msg.text; msg.err != nil {
			m.said = msg.err.Error()
		}
	case tea.KeyPressMsg:
		if msg.String() == "ctrl+c" {
			return m, tea.Quit
		}
		if m.asking != askNothing {
			return m.answer(msg)
		}
		return m.key(msg.String())
	}
	return m, nil
}

// key does what a key stands for.
func (m topModel) key(key string) (tea.Model, tea.Cmd) {
	m.said = ""
	switch key {
	case "q", "esc":
		return m, tea.Quit
	case "tab":
		m.view = (m.view + 1) % views
	case "1", "2", "3":
		m.view = int(key[0] - '1')
	case "s":
		orders := daemon.LiveOrders()
		m.query.Sort = orders[(slices.Index(orders, m.query.Sort)+1)%len(orders)]
	case "/":
		m.asking, m.typed = askFilter, m.query.Filter
	case "up", "k":
		m.choose(-1)
	case "down", "j":
		m.choose(1)
	case "e", "l":
		if s := m.selected(); m.view == viewSessions && s >= 0 {
			m.of, m.typed, m.asking = m.page.Sessions[s].ID, "", askRate
			if key == "e" {
				m.asking = askEnd
			}
		}
	}
	return m, nil
}

// selected is the place of the chosen session; -1: there is none.
func (m topModel) selected() int {
	i := slices.IndexFunc(m.page.Sessions, func(s daemon.LiveSession) bool { return s.ID == m.chosen })
	if i < 0 && len(m.page.Sessions) > 0 {
		return 0
	}
	return i
}

func (m *topModel) choose(by int) {
	if i := m.selected(); i >= 0 {
		m.chosen = m.page.Sessions[min(max(0, i+by), len(m.page.Sessions)-1)].ID
	}
}

// answer is what a key does while something is asked for.
func (m topModel) answer(key tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	asked := m.asking
	switch word := key.String(); {
	case word == "esc":
		m.asking = askNothing
	case asked == askEnd:
		m.asking = askNothing
		if word == "y" {
			return m, m.deed(fmt.Sprintf("session %d is ended", m.of), func(id uint64) error { return m.server.end(id) })
		}
	case word == "enter":
		m.asking = askNothing
		if asked == askFilter {
			m.query.Filter = m.typed
			return m, nil
		}
		rate := m.typed
		return m, m.deed(fmt.Sprintf("session %d: %s", m.of, cmp.Or(rate, "as fast as it may")), func(id uint64) error { return m.server.slow(id, rate) })
	case word == "backspace":
		_, size := utf8.DecodeLastRuneInString(m.typed)
		m.typed = m.typed[:len(m.typed)-size]
	case key.Text != "" && len(m.typed) < 100:
		m.typed += key.Text
	}
	return m, nil
}

// deed does something to the session that was asked about.
func (m topModel) deed(done string, do func(id uint64) error) tea.Cmd {
	id := m.of
	return func() tea.Msg { return topDone{done, do(id)} }
}

// View implements [tea.Model].
func (m topModel) View() tea.View {
	lines := []string{topSummary(m.now, m.page), m.headline(), ""}
	selected := -1
	switch m.view {
	case viewSessions:
		lines = append(lines, aligned(sessionRows(m.page.Sessions, m.now.At))...)
		if i := m.selected(); i >= 0 {
			selected = 4 + i
		}
	case viewUsers:
		lines = append(lines, aligned(userRows(m.page.Sessions, m.limits))...)
	case viewRefusals:
		lines = append(lines, aligned(refusalRows(m.now))...)
	}
	room := max(1, m.height-1)
	lines = lines[:min(len(lines), room)]
	for i, line := range lines {
		lines[i] = cut(line, m.width)
		if i == selected {
			lines[i] = "\x1b[7m" + lines[i] + "\x1b[0m"
		}
	}
	for len(lines) < room {
		lines = append(lines, "")
	}
	v := tea.NewView(strings.Join(append(lines, cut(m.bottom(), m.width)), "\n"))
	v.AltScreen = true
	return v
}

func (m topModel) headline() string {
	names := []string{"1 sessions", "2 users", "3 refusals"}
	names[m.view] = "[" + names[m.view] + "]"
	text := strings.Join(names, "  ") + "   order: " + m.query.Sort
	if m.query.Filter != "" {
		text += "   filter: " + m.query.Filter
	}
	return text
}

func (m topModel) bottom() string {
	switch m.asking {
	case askFilter:
		return "filter: " + m.typed + "_"
	case askRate:
		return fmt.Sprintf("slow session %d to (such as 1 Mbit/s; nothing: let it go): %s_", m.of, m.typed)
	case askEnd:
		return fmt.Sprintf("end session %d? y or n", m.of)
	}
	return cmp.Or(m.said, "q leave  tab view  s order  / filter  e end  l slow")
}

// refusalRows are the reasons with their counts, then the last refusals.
func refusalRows(now daemon.LiveNow) [][]string {
	type count struct {
		word string
		n    uint64
	}
	var counts []count
	for word, n := range now.Refused {
		counts = append(counts, count{word, n})
	}
	slices.SortFunc(counts, func(a, b count) int { return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(a.word, b.word)) })
	rows := [][]string{{"REASON", "SESSIONS"}}
	for _, c := range counts {
		rows = append(rows, []string{c.word, fmt.Sprint(c.n)})
	}
	rows = append(rows, nil, []string{"AT", "REASON", "USER", "CLIENT", "TARGET", "RULE", "DETAIL"})
	for _, r := range now.Refusals {
		rows = append(rows, []string{r.At.Format("15:04:05"), r.Reason, orDash(r.User), orDash(r.Client), orDash(r.Target), orDash(r.Rule), r.Detail})
	}
	return rows
}

// mostColumn is how wide a column may get: what is longer moves only its own line.
const mostColumn = 40

// aligned puts rows into columns.
func aligned(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], min(mostColumn, utf8.RuneCountInString(cell)))
		}
	}
	var lines []string
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))+2))
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}

// cut shortens a line to a width.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:max(0, width)])
}
