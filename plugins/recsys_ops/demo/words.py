"""The words of the demo shop: its categories, its colours, and its visitors' user agents."""

COLOURS = (
    "Black", "White", "Blue", "Green", "Red", "Grey", "Sand", "Navy", "Olive", "Rust", "Ivory",
    "Plum", "Teal", "Mustard", "Coral", "Slate",
)  # fmt: skip

# category: (usual price, three styles, six things); people like a style of a category
CATEGORIES: dict[str, tuple[float, tuple[str, str, str], tuple[str, str, str, str, str, str]]] = {
    "shirts": (
        39.0,
        ("linen", "denim", "silk"),
        ("shirt", "blouse", "tunic", "polo shirt", "overshirt", "henley"),
    ),
    "knitwear": (
        69.0,
        ("merino", "cotton", "mohair"),
        ("jumper", "cardigan", "vest", "scarf", "beanie", "roll-neck"),
    ),
    "shoes": (
        89.0,
        ("leather", "canvas", "suede"),
        ("boots", "sneakers", "loafers", "sandals", "brogues", "slippers"),
    ),
    "bags": (
        75.0,
        ("waxed", "woven", "quilted"),
        ("backpack", "tote", "weekender", "messenger bag", "purse", "wash bag"),
    ),
    "kitchen": (
        29.0,
        ("enamel", "cast-iron", "beech"),
        ("saucepan", "bowl", "ladle", "baking dish", "kettle", "board"),
    ),
    "tableware": (
        19.0,
        ("stoneware", "porcelain", "glass"),
        ("mug", "plate", "carafe", "soup bowl", "teapot", "egg cup"),
    ),
    "bedding": (
        59.0,
        ("percale", "flannel", "satin"),
        ("duvet cover", "pillowcase", "sheet", "bedspread", "throw", "blanket"),
    ),
    "lighting": (
        55.0,
        ("brass", "paper", "rattan"),
        ("floor lamp", "pendant", "table lamp", "wall light", "lantern", "shade"),
    ),
    "garden": (
        35.0,
        ("terracotta", "zinc", "teak"),
        ("planter", "bench", "bird bath", "watering can", "trellis", "stool"),
    ),
    "stationery": (
        12.0,
        ("cloth-bound", "recycled", "letterpress"),
        ("notebook", "diary", "folder", "card set", "album", "pad"),
    ),
    "toys": (
        25.0,
        ("wooden", "plush", "tin"),
        ("train", "bear", "puzzle", "rabbit", "building set", "spinning top"),
    ),
    "sports": (
        45.0,
        ("trail", "yoga", "swim"),
        ("jacket", "leggings", "towel", "bottle", "shorts", "gym bag"),
    ),
}

FIRST_NAMES = (
    "ada", "ben", "carla", "dario", "elif", "finn", "grace", "hugo", "ines", "jonas", "kaya", "leo",
    "mina", "noor", "oskar", "petra", "quentin", "rosa", "samir", "tove",
)  # fmt: skip
LAST_NAMES = (
    "andersen", "bauer", "costa", "dubois", "eriksen", "fischer", "garcia", "haddad", "ivanova",
    "jansen", "kowalski", "lopez", "meyer", "novak", "okafor", "rossi", "silva", "tanaka", "weber",
    "yilmaz",
)  # fmt: skip
MAIL_DOMAINS = ("gmail.com", "outlook.com", "icloud.com", "web.de", "orange.fr", "proton.me")

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_IPHONE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"

BROWSERS = (
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/138.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/137.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/138.0.0.0 Safari/537.36"
    " Edg/138.0.0.0",
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/136.0.0.0 Safari/537.36"
    " OPR/121.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT} Chrome/138.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_IPHONE} Version/18.5 Safari/605.1.15",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_IPHONE} Version/17.6 Safari/605.1.15",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0",
    f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} Chrome/138.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:139.0) Gecko/20100101 Firefox/139.0",
    f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_WEBKIT} Chrome/137.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_IPHONE} Version/18.5"
    " Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_7 like Mac OS X) {_IPHONE} Version/17.7"
    " Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 16_7_10 like Mac OS X) {_IPHONE} Version/16.6"
    " Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_IPHONE} CriOS/138.0.7204.53"
    " Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) {_IPHONE} FxiOS/140.0"
    " Mobile/15E148 Safari/605.1.15",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_3_2 like Mac OS X) {_IPHONE} GSA/370.0.762543316"
    " Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) {_IPHONE} Version/18.5 Mobile/15E148"
    " Safari/604.1",
    f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/138.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/137.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/136.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile"
    " Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/138.0.0.0 Mobile Safari/537.36"
    " EdgA/138.0.0.0",
    f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/137.0.0.0 Mobile Safari/537.36"
    " OPR/89.0.0.0",
    "Mozilla/5.0 (Android 14; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0",
    f"Mozilla/5.0 (Linux; Android 14; SM-S921B) {_WEBKIT} Chrome/138.0.7204.63 Mobile"
    " Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 13; Pixel 7) {_WEBKIT} Chrome/137.0.7151.115 Mobile"
    " Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 12; moto g(30)) {_WEBKIT} Chrome/136.0.7103.125 Mobile"
    " Safari/537.36",
    # web views inside other apps; one has the Android build that a public list of robots names by
    # mistake
    f"Mozilla/5.0 (Linux; Android 15; Pixel 8 Build/AP3A.240617.008; wv) {_WEBKIT} Version/4.0"
    " Chrome/137.0.7151.89 Mobile"
    " Safari/537.36",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_IPHONE} Mobile/15E148 Instagram"
    " 385.0.0.30.85 (iPhone15,3;"
    " iOS 18_5; en_GB; en; scale=3.00; 1290x2796; 745562842)",
    f"Mozilla/5.0 (Linux; Android 14; SM-A546B Build/UP1A.231005.007; wv) {_WEBKIT} Version/4.0"
    " Chrome/138.0.7204.63 Mobile"
    " Safari/537.36 [FB_IAB/FB4A;FBAV/518.0.0.63.86;]",
    # the shop's own app
    "DemoShop/3.2.0 (iPhone; iOS 18.5; Scale/3.00)",
    "DemoShop/3.2.0 (Android 14; SM-S921B)",
)

CRAWLERS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) {_WEBKIT} Chrome/137.0.7151.119"
    " Mobile Safari/537.36"
    " (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Googlebot-Image/1.0",
    "Mozilla/5.0"
    f" {_WEBKIT.replace(')', '; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)')}"
    " Chrome/116.0.1938.76"
    " Safari/537.36",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "Mozilla/5.0 (compatible; MJ12bot/v1.4.8; http://mj12bot.com/)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2;"
    " +https://openai.com/gptbot)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; PerplexityBot/1.0;"
    " +https://perplexity.ai/perplexitybot)",
    "CCBot/2.0 (https://commoncrawl.org/faq/)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 (compatible; DotBot/1.2; +https://opensiteexplorer.org/dotbot; help@moz.com)",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_5) {_IPHONE} Version/13.1.1 Safari/605.1.15"
    " (Applebot/0.1;"
    " +http://www.apple.com/go/applebot)",
    "python-requests/2.32.3",
    "Scrapy/2.12.0 (+https://scrapy.org)",
    "curl/8.5.0",
    "Go-http-client/2.0",
)
