package admin

// russianWords are the texts of the dashboard in Russian. A test holds that none is
// missing.
func russianWords() map[string]string {
	all := make(map[string]string)
	for _, part := range []map[string]string{russianFrame(), russianNow(), russianTables(), russianWordLists(), russianHealth(), russianAnswers()} {
		for english, text := range part {
			all[english] = text
		}
	}
	return all
}

func russianFrame() map[string]string {
	return map[string]string{
		"Now": "Сейчас", "Sessions": "Сеансы", "Users": "Пользователи", "Rules": "Правила", "Limits": "Ограничения",
		"History": "История", "Health": "Состояние", "Sign in": "Вход", "Sign in: button": "Войти", "Sign out": "Выйти", "Pages": "Страницы",
		"To the content": "К содержанию", "may only look": "только просмотр", "Name": "Имя", "Password": "Пароль",
		"Password or token": "Пароль или токен",
		"The first password was printed when the server started for the first time.": "Первый пароль был напечатан при первом запуске сервера.",
	}
}

func russianNow() map[string]string {
	return map[string]string{
		"Down": "Приём", "Up": "Отдача", "down": "приём", "up": "отдача", "Open sessions": "Открытые сеансы", "Refused": "Отказы",
		"Throughput": "Скорость", "at most": "не более", "Refused in a second": "Отказов в секунду",
		"The last five minutes": "Последние пять минут", "Since the start": "С запуска", "sessions": "сеансов",
		"Refused, by reason": "Отказы по причинам", "Reason": "Причина", "The last that were refused": "Последние отказы",
		"Time": "Время", "Client": "Клиент", "User": "Пользователь", "Target": "Цель", "Rule": "Правило",
		"Nothing was refused yet.": "Отказов ещё не было.",
	}
}

func russianTables() map[string]string {
	return map[string]string{
		"Filter": "Фильтр", "user, client, target, rule": "пользователь, клиент, цель, правило", "Order": "Порядок", "Show": "Показать",
		"they match the filter": "подходят под фильтр", "shown": "показаны", "Moved": "Передано", "Age": "Возраст", "What to do": "Действия",
		"claimed": "не подтверждён", "via": "через", "End": "Завершить", "Slow": "Замедлить", "Slow the session": "Замедлить сеанс", "At most": "Не более", "empty: no limit": "пусто: без ограничения", "End the session": "Завершить сеанс", "There are none.": "Их нет.",
		"Parts of the list": "Части списка", "Before": "Назад", "More": "Дальше",
		"The settings name no place for users.": "В настройках не указано, где хранить пользователей.",
		"Add a user":                            "Добавить", "Groups": "Группы", "Today": "Сегодня", "This month": "За месяц", "disabled": "отключён",
		"Change": "Изменить", "New password": "Новый пароль", "Set": "Задать", "Let sign in again": "Снова разрешить вход", "Disable": "Отключить",
		"I am sure": "Подтверждаю", "Remove": "Удалить", "Days and months are those of UTC.": "Дни и месяцы — по UTC.",
		"Usage": "Использование", "Usage of": "Использование:", "all users": "все пользователи", "The last 30 days": "Последние 30 дней", "The last 12 months": "Последние 12 месяцев", "Groups of": "Группы:",
		"Try a request": "Проверить запрос", "From (IP address)": "Откуда (IP-адрес)", "To (host:port)": "Куда (узел:порт)", "Proof": "Подтверждение",
		"as usual": "как обычно", "Protocol": "Протокол", "Command": "Команда", "Listener": "Точка входа", "At what time": "В какое время",
		"now": "сейчас", "Try": "Проверить", "The answer": "Ответ", "Allowed": "Разрешено", "by the rule": "по правилу",
		"Addresses": "Адреса", "May be reached": "Доступны", "deny": "запрет", "allow": "доступ", "In their order": "По порядку", "No.": "№",
		"Leaves by": "Выход", "Hits": "Срабатывания", "Last hit": "Последнее",
		"Hits are counted from the start of the server. What no rule allows is denied.": "Срабатывания считаются с запуска сервера. Что не разрешено ни одним правилом, запрещено.",
		"Limit": "Ограничение", "Counted by": "Считается", "The settings have no limits.": "В настройках нет ограничений.",
		"Quotas": "Квоты", "of": "из", "Of": "Из", "Allow more of": "Добавить к", "Allow more": "Добавить", "Allow": "Добавить", "New rate": "Новая скорость",
		"A rate that is changed here holds until the settings are read anew.": "Изменённая здесь скорость действует до следующего чтения настроек.",
		"Of whom": "Чья", "Used": "Использовано", "How much": "Сколько", "Nobody has used anything of a quota.": "Квоты ещё никто не использовал.",
		"Sum up by": "Итоги по", "Since": "С", "Until": "По", "Download as CSV": "Скачать CSV",
		"Nothing was used in that time.": "За это время ничего не было.", "Times are those of UTC.": "Время — по UTC.",
	}
}

func russianWordLists() map[string]string {
	return map[string]string{
		"order: speed": "быстрые", "order: bytes": "больше передано", "order: newest": "новые", "order: oldest": "старые",
		"order: user": "по пользователю", "order: client": "по клиенту", "order: target": "по цели", "order: rule": "по правилу",
		"by: day": "День", "by: hour": "Час", "by: month": "Месяц", "by: user": "Пользователь", "by: source": "Клиент",
		"by: rule": "Правило", "by: listener": "Точка входа", "by: host": "Узел",
		"per: session": "на сеанс", "per: source": "на адрес", "per: user": "на пользователя", "per: group": "на группу",
		"per: rule": "на правило", "per: listener": "на точку входа", "per: server": "на весь сервер",
	}
}

func russianHealth() map[string]string {
	return map[string]string{
		"Version": "Версия", "Running for": "Работает", "Settings": "Настройки",
		"The last reload failed, and the settings before it are in force": "Последнее чтение настроек не удалось, действуют прежние",
		"The settings were read anew":                                     "Настройки прочитаны заново",
		"The settings are those of the start.":                            "Действуют настройки, прочитанные при запуске.",
		"Read the settings anew":                                          "Прочитать настройки заново",
		"Listeners":                                                       "Точки входа", "Ledger": "Учёт", "cannot be written": "не записывается", "is written": "записывается", "node": "узел", "since": "с",
		"the system's resolver": "система", "No ledger is kept.": "Учёт не ведётся.", "Names and identd": "Имена и identd", "Names are looked up by": "Имена ищет",
		"Names without an address": "Имена без адреса", "identd did not answer": "identd не ответил", "identd named somebody else": "identd назвал другого",
		"Upstreams": "Вышестоящие прокси", "alive": "работает", "down, is checked": "не отвечает, проверяется",
		"Certificates": "Сертификаты", "cannot be read": "не читается", "expires in": "истекает через", "has expired": "истёк",
	}
}

func russianAnswers() map[string]string {
	return map[string]string{
		doneEnded: "Сеанс завершён.", doneSlowed: "Скорость сеанса ограничена по-новому.", doneAdded: "Пользователь добавлен.", donePassword: "Пароль изменён.",
		doneDisabled: "Пользователь больше не может войти.", doneEnabled: "Пользователь снова может войти.",
		doneRemoved: "Пользователь удалён.", doneGroups: "Группы изменены.", doneGranted: "Добавлено.", doneRate: "Скорость изменена до следующего чтения настроек.", doneReloaded: "Настройки прочитаны заново и действуют.",
		errNotConfirmed.Error(): "Отметьте, что подтверждаете.",
		ErrWrongLogin.Error():   "Нет такого имени, или пароль другой.",
		ErrNoSession.Error():    "Такого открытого сеанса нет.",
		ErrUserExists.Error():   "Такой пользователь уже есть.",
		ErrNoUser.Error():       "Такого пользователя нет.",
		ErrNoLedger.Error():     "Учёт не ведётся.",
		ErrNoGroup.Error():      "Такой группы в учёте нет; остальные меняются в настройках.",
	}
}
