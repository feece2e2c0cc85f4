"""What a question asks for although the text says nothing of it.

Small models like to ask for the same sides of whatever they read: awards of every person, precautions of every recipe,
drawbacks of every tool. No answer out of the text can give what the text does not have. Each aspect has the words that
ask for it, and the words one of which a text must have to say anything about it: generous ones, for a false alarm costs
a good pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .context import has_material
from .texts import han_share

_TIME = r"\d{3,4}年|世[纪紀]|年代|[朝代][末初中]|[时時]期|[元初末]年"
_CHINESE = {
    "缺[点點]|不足之[处處]|劣[势勢]|弊端|缺陷|[坏壞][处處]": (
        "[缺弊劣难難坏壞差但却卻]|不足|不便|局限|不[过過]|然而|[问問][题題]|[风風][险險]"
    ),
    "[获獲][奖獎]|[奖獎][项項]|荣誉(?:[和与、。？?]|$|有哪些|是什么)": (
        "[奖獎勋勛授]|[冠亚亞季][军軍]|[金银銀铜銅]牌|荣誉|榮譽|[称稱][号號]|院士|提名|[纪紀][录錄]|入[选選]"
        "|[第前][一二三四五六七八九十]|桂冠"
    ),
    "注意事[项項]|注意什么|注意哪些|需要?注意": (
        "[别別勿禁忌须須应應警]|注意|不[要可能宜得]|避免|防止|以免|否[则則]|小心|[谨謹]|建[议議]|[务務]必|一定要|最好|如果"
        "|更佳|更好|[当當]心|[记記]得|[尽儘盡]量|[关關][键鍵]|[诀訣][窍竅]"
    ),
    "[对對][^，,。？]{1,8}(?:[产產]生了?|有)?(?:什么|什麼|哪些|何)(?:作用|意[义義]|[贡貢][献獻])": (
        "作用|功[能效用]|用[于於来來途以]|意[义義]|促[进進]|推[动動]|有助|[帮幫]助|使|[导導]致|有利|造成|影[响響]|[贡貢][献獻]|提供|提高|改善|保[护護]|[带帶][来來]"
    ),
    "生平|[介简簡][绍紹介][^，。？]{1,20}的[经經][历歷]": (
        r"(?<![发發产產])生[于於卒]|[出诞誕]生|[，,（][^，。、]{1,8}[^等他她别別有个個本大]人[，。、）]|[省市县縣州国國]人|祖籍|出身|[当當]兵|退[伍休]|[幼早童]年|小[时時]候"
        r"|[毕畢][业業]|[逝去]世|病[逝故]|[卒葬]|享年|[牺犧]牲|[战戰]死|[遇被][害杀殺]"
        r"|[—－–~～-]\s?\d{2,4}年?[）)]"
        r"|\A[^，。\d]{2,40}(?:（[^（）]{0,80}）)?[，是为為][^。]{0,40}(?:家|[员員]|手|[师師]|者|官|[军軍将將]|士|主[席持]|[总總])"
    ),
    (
        "[历歷]史(?!人物|[学學名]|意[义義]|地位|[贡貢][献獻]|影[响響]|作用|[价價]值)|沿革|[演变變]{2}"
        "|[发發]展(?:[历歷]程|[过過]程)"
    ): (rf"(?:{_TIME})[\s\S]*?(?:{_TIME})|[历歷]史|起源|[古近]代|最早|[创創][立办辦建]|成立|前身|[后後][来來]"),
    "[风風]格": r"[风風]格|[^仪儀形方正模公格]式|派|[样樣]",
    "研究成果|研究[领領]域|[学學][术術]成就": "研究|[论論]文|[发發][现現明表]|理[论論]|[学學][说說术術]|成果|著(?!名)",
    "著作|[论論]著|[专專]著": "著(?!名)|《|[书書典]|[发發]表|出版|[编編撰]|[诗詩]|文集|[论論]文|[写寫译譯]|作[者家品]",
    (
        "附[加带帶属屬][^，、。？]{0,2}(?:[内內]容|信息|[说說]明|[资資][料讯訊])|附[录錄]|其[他它][内內]容|相[关關](?:[内內]容|[链連鏈][接結])"
        "|参考(?:资料|文献)|延伸阅读"
    ): "(?!)",  # names of a page's own sections: nobody asks for them
    "未来的?(?:规划|计划|发展|展望|走向)|发展前景|前景如何|展望": (
        "[将將拟擬]|未[来來]|[计計][划劃]|[规規][划劃]|[预預][计計期]|目[标標]|有望|今[后後]|[趋趨][势勢]|前景|展望"
    ),
    "繁殖": "[繁卵胎孵仔幼育]|[产產]子|交配|[怀懷]孕|生殖|[种種]子|[开開]花|花期|分株|扦插",
    "营养价值|营养成分|热量|卡路里": (
        "[卡糖钙鈣铁鐵]|[营營][养養]|蛋白|[维維]生素|[维維]他命|[纤纖][维維]|脂肪|[热熱]量|[矿礦]物|能量|千焦"
    ),
    "婚姻|婚育|家庭(?:情况|成员|生活)|夫人|配偶|子女": (
        "[婚妻夫父母嫁娶儿兒兄弟姐妹]|家庭|子女|女友|男友|配偶|之[子女]|[长長次幼独獨][子女]"
    ),
    "退役|退伍": "退[役伍休]|[离離][队隊]",
    "(?<![没沒无])[伤傷]亡": "[亡伤傷死杀殺俘沉毁毀损損]|[牺犧]牲|遇[难難]|全[灭滅歼殲]",
    "[伤傷]?(?:死亡?|去世|逝世)的?原因|死因": (
        "病|癌|[杀殺]|[刑斩斬]|[祸禍]|意外|事故|[伤傷]|[战戰]死|[阵陣]亡|[牺犧]牲|衰|猝|毒|[难難]|中[风風]|[积積][劳勞]|炎|因|自[尽盡缢縊]"
    ),
    "治[疗療](?:方法|方式|手段|措施)?(?=[、，和與与及。？?]|有哪些)": (
        "(?<![乔喬政法统統自])治|[疗療]|[药藥]|手[术術]|服用|切除|[护護]理|[缓緩]解|[冷热熱]敷"
    ),
    "[预預]防(?:措施|方法)?(?=[、，和與与及。？?]|有哪些)": (
        "[预預]防|防|避免|疫苗|不[要宜可]|[应應][当當]|注意|[减減]少"
    ),
    "保[护護][级級现現][别別状狀]|[濒瀕]危": "保[护護育]|[濒瀕易近极極]危|[红紅]皮|[灭滅][绝絕]|IUCN|受胁",
    "交通(?:[状狀][况況]|情[况況]|方式)?(?=[、，和與与及。？?]|如何)": (
        "路|[铁鐵]|站|[车車]|[机機][场場]|[航港船桥橋隧]|[线線]|交通|[运運]|步行|[驿驛]|[码碼][头頭]"
    ),
    "宗教": "教|寺|神|佛|[庙廟]|信仰|[经經]|僧|道[观觀士]",
    "行政[区區][划劃]": "[省市县縣区區乡鄉镇鎮村州郡府道街旗]",
    "(?:文化|[历歷]史|象[征徵])意[义義]": (
        "意[义義]|象[征徵]|代表|[标標][志誌]|文化|[传傳][统統承]|[纪紀]念|[节節]|[信祭祀]|[里裡]程碑|[开開]端|第一|首|最|影[响響]|[价價]值"
    ),
    "[发發]行(?:情[况況]|[时時][间間]|日期)?(?=[、，和與与及。？?]|是)": (
        "[发發][行表售]|推出|上[映市架]|出版|播出|[连連][载載]"
    ),
    "人口(?:数量|情况|是|有|多)": r"人口|居民|[户戶]|\d\s*[万萬亿億]?\s*人",
    "面积": "面[积積]|平方|公[顷頃]|[亩畝]|占地|㎡|km²",
    "价格|售价|多少钱|费用|成本": r"[元价價费費钱錢\$￥贵貴]|成本|[预預]算|便宜",
    "危害|副作用|风险": (
        "[害伤傷病癌死毒险險损損危恶惡泄漏慢]|副作用|不良|事故|破[坏壞]|[污汙]染|攻[击擊]|影[响響]|占用|阻塞|崩[溃潰]|宕机"
    ),
    "气候": "[温溫雨雪季热熱冷干乾湿濕]|[气氣]候|降水",
    "养殖|饲养": "[养養饲飼]|水族|[鱼魚]缸",
    "(?:如何|怎[样樣么麼])工作": (
        "工作|原理|[运運][转轉作行]|[机機器泵]|[装裝]置|系[统統]|[设設][备備]|程序|算法|[电電]|作用|[过過]程|收[缩縮]|循[环環]"
        "|[驱驅][动動]|控制|信[号號]|[处處]理|[数數][据據]|[压壓]|燃|[职職員员]"
    ),
    "票房": "票房|收入|[万萬亿億]",
    "演员|主演": "[演饰飾]|配音|角色",
    "判决|审判|审理": "[审審判庭罪刑]|起[诉訴]|法院",
    "结局": "[终終死]|[结結]局|最[后後]|[结結]果|[于於]是|[从從]此",
}
_ENGLISH = {
    r"drawbacks?|disadvantages?|downsides?|weaknesses": (
        r"\b(?:but|however|although|though|drawback|disadvantage|only|cannot|slow|hard|difficult|risk|problem|lack"
        r"|limit)"
    ),
    r"awards?|prizes?|hono(?:u)?rs": r"\b(?:award|prize|medal|honou?r|won|winn|champion|title|nominat|elected|record)",
    r"precautions?|(?:watch out|look out) for": (
        r"\b(?:not|never|avoid|careful|caution|warn|must|should|otherwise|or else|too|only|make sure|do)\b|n[’']t\b"
    ),
    r"further reading|references|appendix|external links": r"\breferences\b",
    r"future (?:plans?|prospects?)|outlook": r"\b(?:will|plan|future|expect|aim|hope|intend|set to|prospect|outlook)",
    r"nutritional|nutrition|calories": r"\b(?:nutri|protein|vitamin|fib(?:re|er)|fat|calori|sugar|iron|calcium|energy)",
    r"side effects?": r"\b(?:side|nausea|pain|headache|risk|harm|reaction|symptom|effect)",
    r"population": r"\b(?:population|inhabitant|resident|people)|\d",
    r"price|costs?": r"[$€£¥]|\b(?:price|cost|cheap|expensive|pay|paid|free|dollar|euro|pound)",
    r"climate": r"\b(?:climate|rain|snow|temperature|warm|cold|dry|hot|wet|humid|season)",
    r"reproduction|reproduc(?:e|es|ed)|breeding|life ?cycles?": (
        r"\b(?:reproduc|breed|bred|eggs?\b(?!-)|spawn|hatch|mat(?:e|es|ed|ing)\b|offspring|young|larval|seed|flower"
        r"|spore|birth"
        r"|litter|nest|pupa|cutting)"
    ),
    r"habitats?|distribution": (
        r"\b(?:habitat|liv(?:e|es|ing)\b|native|found|occur|range|distribut|forest|sea|ocean|river|lake|soil|rock"
        r"|mountain|desert"
        r"|island|coast|water|tree|region|climate|north|south|east|west|across|throughout)"
    ),
    r"diet|feeding habits|do(?:es)? [a-z ]{2,30} (?:eat|feed)": (
        r"\b(?:eat|ate|feed|fed|food|prey|diet|graz|hunt|forag|suck|nectar|insect|leaves)"
    ),
    r"(?:early|personal) life|childhood|upbringing|education": (
        r"\b(?:born|birth|child|youth|young|school|universit|college|degree|stud(?:y|ied)|educat|grew|parent|father"
        r"|mother|son\b"
        r"|daughter|learn|taught|train|marri|wife|husband|famil|brother|sister|aged?\b)"
    ),
    r"(?:publications|writings|books|(?:his|her|their) book)(?: (?:by|of|that))?": (
        r"\b(?:book|publi|wr[io]te|written|writ(?:es|ing)|author|novel|poe[mt]|stor(?:y|ies)|essay|article|paper"
        r"|edit)|[\"“]"
    ),
    r"legacy": (
        r"\b(?:legac|inspir|influenc|remember|later|after|became|honou?r|named|memor|still|today|model|monument"
        r"|museum|since)"
    ),
    r"death": r"\b(?:die[ds]?\b|dying|death|dead|kill|buri|murder|execut|drown|fatal)",
    r"look like|(?:physical )?appearance|physical (?:features|characteristics)": (
        r"\b(?:look|appear|resembl|long|short|large|small|big|size|tall|thin|thick|round|flat|shape|form|colou?r"
        r"|black|white|red|green"
        r"|blue|brown|yellow|gr[ae]y|gold|silver|dark|bright|bod(?:y|ies)|head|face|eye|arm|leg|wing|tail|skin|fur"
        r"|hair|feather|shell|leaf"
        r"|leaves|petal|stripe|spot|weigh|met(?:er|re)|centimet|millimet|feet|inch|wear|dress)|\d ?(?:m|cm|mm|kg|ft"
        r"|in)\b"
    ),
    r"predators|self-defen[cs]e|defen[cs]e mechanisms?|protect (?:themselves|itself)": (
        r"\b(?:prey|predator|defen|protect|escap|flee|fled|hid(?:e|es|ing)|enem|camouflag|sting|poison|venom|bit(?:e"
        r"|es|ing)|attack|threat"
        r"|danger|shell|spine|hunt|kill|guard|avoid|safe|eaten)"
    ),
    r"(?:historical )?history|historical (?:background|development)|origins?": (
        r"\b(?:1\d{3}|20\d\d|\d+(?:st|nd|rd|th)|centur|histor|ancient|medieval|prehistor|found(?:ed|ing|er)|origin"
        r"|first|earl(?:y|ier|iest)"
        r"|ago|former|later|became|built|establish|since|war|began|begin|start|invent|introduc|discover|tradition"
        r"|deriv|cop(?:y|ied)|from"
        r"|use to|used to|old(?:er|est)?|new(?:er|est)?)"
    ),
    r"(?:notable|famous|major|important|best[- ]known|main) (?:works?|paintings|pieces)": (
        r"\b(?:works\b|paintings\b|portrait|masterpiece|novel|poem|book|album|song|film|symphon|opera|sculpture|mural|titled|entitled)"
        r"|[\"“‘]"
    ),
    r"life ?spans?|life expectancy|longevity": r"\b(?:year|month|week|day|hour|live|living|old|age)",
    r"conservation(?: status)?|endangered": (
        r"\b(?:conserv|endanger|threat|protect|extinct|vulnerab|declin|rare|IUCN|surviv|save|saving)"
    ),
    r"marriage|spouse|family life": (
        r"\b(?:marri|wife|wives|husband|child|son\b|sons\b|daughter|famil|father|mother|brother|sister|parent|spouse"
        r"|wed|widow|partner)"
    ),
    r"social (?:behaviou?r|structure|life)|socializ(?:e|ing)": (
        r"\b(?:group|colon|herd|pack|social|pair|alone|solitar|famil|together|communit|flock|play|mate|friend|pride"
        r"|raft|class|citizen|people)"
    ),
    r"box office": r"\b(?:box office|gross|earn|million|billion|revenue)|\$",
    r"cast|actors|starring": r"\b(?:star|cast|act(?:or|ress|ed|ing)|play|role|voice|portray|film)",
    r"symptoms": (
        r"\b(?:symptom|sign|pain|fever|cough|ache|swell|rash|feel|bleed|tired|loss|suffer|vomit|nausea|sore|itch)"
    ),
}


def _compiled(table: Mapping[str, str]) -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
    return [(re.compile(asks, re.IGNORECASE), re.compile(says, re.IGNORECASE)) for asks, says in table.items()]


_IN_CHINESE = _compiled(_CHINESE)
_IN_ENGLISH = _compiled({rf"\b(?:{asks})\b": says for asks, says in _ENGLISH.items()})


def asks_beyond(instruction: str, text: str) -> str:
    """The first aspect that the instruction asks for and the text says nothing of, in the instruction's words, or "".

    A long instruction brings material of its own, whose words ask for nothing.
    """
    if has_material(instruction):
        return ""
    for asks, says in _IN_CHINESE if han_share(instruction) > 0 else _IN_ENGLISH:
        if (match := asks.search(instruction)) and not says.search(text):
            return match[0]
    return ""
