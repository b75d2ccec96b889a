"""Articles of an invented help desk, in English, German and Chinese: 20 problems with 15 products each.

articles("german")[7]           # {"sku": "de-007", "title": "Uhr: Passwort ändern", "body": ..., "category": "account"}
questions("german")["de-q1"]    # ("Wie lassen sich Passwörter von Druckern ändern?", "de-001")

A question has another form of the words than its article, as people write: plurals, other tenses, other endings.
"""

import itertools
import random

CODES = {"english": "en", "german": "de", "chinese": "zh"}
PRODUCTS = {
    "english": "router printer laptop tablet phone camera watch speaker television keyboard headset scanner "
    "projector monitor charger",
    "german": "Router Drucker Laptop Tablet Telefon Kamera Uhr Lautsprecher Fernseher Tastatur Kopfhörer Scanner "
    "Beamer Bildschirm Ladegerät",
    "chinese": "路由器 打印机 笔记本电脑 平板电脑 手机 相机 手表 音箱 电视 键盘 耳机 扫描仪 投影仪 显示器 充电器",
}
CATEGORIES = "account order device network".split()
PROBLEMS = {  # a title and a body each, five of a category
    "english": """
        change a password|You change the password in the settings. A strong password has twelve characters.
        delete an account|An account is deleted after thirty days. Until then it can be restored.
        sign in with a code|We send a code by text message. Enter it to sign in.
        update an address|Open your profile and enter the new address. It is used for every later parcel.
        cancel a subscription|A subscription is cancelled at the end of the month. You keep access until then.
        return a parcel|Print the label and bring the parcel to a shop. The refund takes five days.
        pay by invoice|An invoice is paid within two weeks. A reminder costs three euros.
        track a delivery|The number in the message shows where the delivery is. It is updated every hour.
        claim the warranty|The warranty covers two years. Keep the receipt of the purchase.
        use a voucher|Enter the voucher at the checkout. It is valid for one year.
        replace a battery|The battery is replaced by a technician. It lasts about eight hours.
        clean the surface|Wipe the surface with a dry cloth. Never use alcohol.
        reset to factory settings|Hold the button for ten seconds. All data is erased.
        install an update|An update is installed overnight. Keep it plugged in.
        repair a broken cable|A broken cable is repaired free of charge. Send us a photo.
        connect to a wireless network|Choose the network and enter its key. A green light shows the connection.
        fix slow connections|Move it closer to the window. Restarting helps in most cases.
        share files|Files are shared with people of your choice. Each file may have two gigabytes.
        block unknown callers|Unknown callers are blocked by a filter. You find the list under safety.
        set a language|The language is set at the first start. Thirty languages are available.""",
    "german": """
        Passwort ändern|Das Passwort wird in den Einstellungen geändert. Ein gutes Passwort hat zwölf Zeichen.
        Konto löschen|Ein Konto wird nach dreißig Tagen gelöscht. Bis dahin lässt es sich wiederherstellen.
        mit einem Code anmelden|Wir schicken einen Code per Nachricht. Geben Sie ihn bei der Anmeldung ein.
        Adresse aktualisieren|Öffnen Sie Ihr Profil und tragen Sie die neue Adresse ein. Sie gilt für spätere Pakete.
        Abonnement kündigen|Ein Abonnement endet zum Monatsende. Eine Kündigung ist jederzeit möglich.
        Paket zurücksenden|Drucken Sie den Aufkleber und bringen Sie das Paket in einen Laden. Erstattet wird bald.
        auf Rechnung zahlen|Eine Rechnung ist nach zwei Wochen fällig. Eine Mahnung kostet drei Euro.
        Lieferung verfolgen|Die Nummer in der Nachricht zeigt, wo die Lieferung ist. Sie wird stündlich erneuert.
        Garantie beanspruchen|Die Garantie gilt zwei Jahre. Bewahren Sie den Kaufbeleg auf.
        Gutschein einlösen|Geben Sie den Gutschein an der Kasse ein. Er gilt ein Jahr.
        Akku wechseln|Der Akku wird von einem Techniker gewechselt. Er hält rund acht Stunden.
        Oberfläche reinigen|Wischen Sie die Oberfläche mit einem trockenen Tuch ab. Nehmen Sie keinen Alkohol.
        auf Werkseinstellungen zurücksetzen|Halten Sie den Knopf zehn Sekunden gedrückt. Alle Daten gehen verloren.
        Aktualisierung einspielen|Eine Aktualisierung läuft über Nacht. Lassen Sie das Netzteil angeschlossen.
        defektes Kabel reparieren|Ein defektes Kabel wird kostenlos repariert. Schicken Sie uns ein Foto.
        mit dem Funknetz verbinden|Wählen Sie das Funknetz und geben Sie den Schlüssel ein. Ein grünes Licht leuchtet.
        langsame Verbindung beheben|Stellen Sie das Gerät näher ans Fenster. Oft hilft ein Neustart.
        Datei teilen|Eine Datei wird mit Personen Ihrer Wahl geteilt. Sie darf zwei Gigabyte haben.
        unbekannten Anrufer sperren|Ein unbekannter Anrufer wird vom Filter gesperrt. Die Liste steht unter Sicherheit.
        Sprache einstellen|Die Sprache wird beim ersten Start eingestellt. Zur Wahl stehen dreißig Sprachen.""",
    "chinese": """
        修改密码|请在设置中修改密码。好的密码有十二个字符。
        删除账户|账户会在三十天后删除。在此之前可以恢复。
        用验证码登录|我们会用短信发送验证码。输入后即可登录。
        更新地址|打开个人资料并填写新地址。以后的包裹都会寄到那里。
        取消订阅|订阅在月底取消。在此之前仍可使用。
        退回包裹|打印标签并把包裹送到门店。退款需要五天。
        用发票付款|发票须在两周内付清。催款通知收费三元。
        跟踪配送|短信中的编号显示配送的位置。每小时更新一次。
        申请保修|保修期为两年。请保存购买凭证。
        使用优惠券|结账时输入优惠券。有效期为一年。
        更换电池|电池由技术人员更换。可以使用八个小时。
        清洁表面|用干布擦拭表面。切勿使用酒精。
        恢复出厂设置|按住按钮十秒钟。所有数据都会清除。
        安装更新程序|更新程序在夜间安装。请保持接通电源。
        修理损坏的电缆|损坏的电缆免费修理。请发一张照片给我们。
        连接无线网络|选择网络并输入密钥。绿灯表示已经连接。
        解决网速缓慢|请把设备放得离窗户近一些。重新启动通常有帮助。
        共享文件|文件可以与您选择的人共享。每个文件最多两千兆字节。
        屏蔽陌生来电|陌生来电由过滤器屏蔽。名单在安全选项下。
        设定语言|第一次启动时设定语言。有三十种语言可选。""",
}
QUESTIONS = {  # of a problem and a product, by their places
    "english": """
        0 1 how are passwords changed on printers?|3 2 updating addresses for laptops
        4 8 we cancelled our subscriptions of televisions|5 6 returning parcels with watches
        8 5 claiming warranties for cameras|10 4 replacing batteries in phones
        11 9 is cleaning the surfaces of keyboards safe?|14 14 repairing cables of chargers that broke
        15 7 connecting speakers to networks|17 3 sharing a file between tablets""",
    "german": """
        0 1 Wie lassen sich Passwörter von Druckern ändern?|3 2 neue Adressen bei Laptops
        4 8 Wie kündigt man Abonnements für Fernsehern?|5 6 Pakete mit Uhren zurückgesendet
        8 5 Garantien für Kameras|10 4 gewechselte Akkus von Telefonen
        11 9 Reinigung der Oberflächen von Tastaturen|14 14 defekte Kabeln von Ladegeräten
        15 7 Lautsprechern verbinden sich mit Funknetzen|17 3 geteilte Dateien auf Tablets""",
    "chinese": """
        0 1 打印机的密码怎么修改？|3 2 笔记本电脑要更新我的地址
        4 8 我想把电视的订阅取消|5 6 怎样退回手表的包裹
        8 5 如何给相机申请保修|10 4 手机的电池在哪里更换
        11 9 键盘表面能用什么清洁|14 14 充电器的电缆损坏了谁来修理
        15 7 音箱怎么连接家里的无线网络|17 3 平板电脑之间如何共享文件""",
}
ENDINGS = {
    "english": "Our team answers on weekdays.|You find a film about it on our site.|It works in every country.|",
    "german": "Unser Team antwortet an Werktagen.|Auf der Seite ist ein Film dazu.|Es geht in jedem Land.|",
    "chinese": "我们的团队在工作日回复。|网站上有相关的视频。|在每个国家都适用。|",
}


def articles(language: str) -> list[dict[str, str]]:
    """Return the 300 articles of a language, each with several fields, in the same order every time."""
    rng, found = random.Random(0), []
    problems = [line.strip().split("|") for line in PROBLEMS[language].split("\n") if line.strip()]
    for number, ((place, (title, body)), product) in enumerate(
        itertools.product(enumerate(problems), PRODUCTS[language].split())
    ):
        space = "" if language == "chinese" else " "
        name = product if language == "chinese" else f"{product[:1].upper()}{product[1:]}"
        ending = space.join(rng.sample(ENDINGS[language].split("|"), 2)).strip()
        found.append(
            {
                "sku": f"{CODES[language]}-{number:03}",
                "title": f"{name}{'：' if language == 'chinese' else ': '}{title}",
                "body": f"{body}{space}{ending}",
                "category": CATEGORIES[place // 5],
            }
        )
    return found


def questions(language: str) -> dict[str, tuple[str, str]]:
    """Return ten questions of a language, each with the id of the article that answers it."""
    found, code = {}, CODES[language]
    lines = [one.strip() for line in QUESTIONS[language].split("\n") for one in line.split("|") if one.strip()]
    for number, line in enumerate(lines, start=1):
        problem, product, text = line.split(" ", 2)
        found[f"{code}-q{number}"] = text, f"{code}-{int(problem) * 15 + int(product):03}"
    return found
