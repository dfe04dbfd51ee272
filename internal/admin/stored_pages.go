package admin

import (
	"cmp"
	"encoding/csv"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The pages of what does not change by the second.

// usersData is what the page Users shows.
type usersData struct {
	UserList
	Quotas []Limit // those that count by user
	Asked  string  // whose use is shown; empty: that of all
	Use    []usePeriods
}

func (d *desk) showUsers(r *http.Request, v *sight) error {
	list, err := d.Users.Users(r.Context())
	data := usersData{UserList: list}
	for _, l := range d.Rules.Limits() {
		if l.Kind == "quota" && l.Per == "user" {
			data.Quotas = append(data.Quotas, l)
		}
	}
	data.Asked = r.URL.Query().Get("user")
	if data.Kept && err == nil {
		data.Use, err = d.useOf(r.Context(), data.Asked)
	}
	v.Data = data
	return err
}

// rulesData is what the page Rules shows.
type rulesData struct {
	Rules     []Rule
	Listeners []string
	Asked     Question
	Answer    *Explanation // nil: nothing was asked
}

func (d *desk) showRules(r *http.Request, v *sight) error {
	q := r.URL.Query()
	data := rulesData{Rules: d.Rules.Rules(), Listeners: d.Rules.Listeners(), Asked: Question{
		From: q.Get("from"), To: q.Get("to"), User: q.Get("user"), Proof: q.Get("proof"),
		Command: q.Get("command"), Protocol: q.Get("protocol"), Listener: q.Get("listener"), At: q.Get("at"),
	}}
	var err error
	if data.Asked.From != "" || data.Asked.To != "" {
		data.Answer, err = d.Rules.Explain(r.Context(), data.Asked)
	}
	v.Data = data
	return err
}

// limitsData is what the page Limits shows.
type limitsData struct {
	Limits []Limit
	Quotas []Quota // the fullest first
}

func (d *desk) showLimits(_ *http.Request, v *sight) error {
	quotas := d.Daemon.Quotas().Quotas
	slices.SortStableFunc(quotas, func(a, b Quota) int {
		return cmp.Or(strings.Compare(a.Limit, b.Limit), cmp.Compare(b.Percent(), a.Percent()), strings.Compare(a.Key, b.Key))
	})
	v.Data = limitsData{d.Rules.Limits(), quotas[:min(len(quotas), mostQuotas)]}
	return nil
}

// mostQuotas is how many are shown. The API has all of them.
const mostQuotas = 500

// Percent is how much of it is used.
func (q Quota) Percent() int64 {
	if q.Most <= 0 {
		return 100
	}
	return min(100, int64(float64(q.Used)/float64(q.Most)*100))
}

// historyData is what the page History shows.
type historyData struct {
	Asked  UsageQuery
	Groups []string
	Report *UsageReport
	Chart  template.HTML // empty: it is not by time
	Most   int64         // bytes of the highest bar
	CSV    string        // where the same is for a spreadsheet
}

// usageOf reads a query.
func usageOf(q url.Values) UsageQuery {
	by := q.Get("by")
	if by == "" {
		by = "day"
	}
	return UsageQuery{By: by, Since: q.Get("since"), Until: q.Get("until"), User: q.Get("user"), Source: q.Get("source"), Rule: q.Get("rule")}
}

func (d *desk) showHistory(r *http.Request, v *sight) error {
	data := historyData{
		Asked:  usageOf(r.URL.Query()),
		Groups: []string{"day", "hour", "month", "user", "source", "rule", "listener", "host"},
		CSV:    (&url.URL{Path: "/history.csv", RawQuery: r.URL.Query().Encode()}).String(),
	}
	var err error
	data.Report, err = d.History.Usage(r.Context(), data.Asked)
	if err == nil && isTime(data.Asked.By) {
		var pairs [][2]float64
		for _, l := range data.Report.Lines {
			pairs = append(pairs, [2]float64{float64(l.Down), float64(l.Up)})
			data.Most = max(data.Most, l.Down+l.Up)
		}
		data.Chart = bars(leastBars, pairs)
	}
	v.Data = data
	return err
}

func isTime(by string) bool { return by == "day" || by == "hour" || by == "month" }

// historyCSV answers with the page's table. A cell that a spreadsheet would take for
// a formula gets an apostrophe before it.
func (d *desk) historyCSV(w http.ResponseWriter, r *http.Request) {
	asked := usageOf(r.URL.Query())
	report, err := d.History.Usage(r.Context(), asked)
	if err != nil {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="sallyport-usage.csv"`)
	table := csv.NewWriter(w)
	rows := [][]string{{asked.By, "sessions", "refused", "up", "down"}}
	for _, l := range report.Lines {
		name := l.Name
		if strings.ContainsAny(name[:min(1, len(name))], "=+-@\t\r") {
			name = "'" + name
		}
		row := []string{name}
		for _, n := range []int64{l.Sessions, l.Refused, l.Up, l.Down} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, row)
	}
	_ = table.WriteAll(rows) // who has left reads nothing
}

// healthData is what the page Health shows.
type healthData struct {
	Report HealthReport
	Status
}

func (d *desk) showHealth(_ *http.Request, v *sight) error {
	v.Data = healthData{d.Health.Health(), d.Daemon.Status()}
	return nil
}
