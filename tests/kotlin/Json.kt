package org.json

private class Reader(private val text: String) {
    private var at = 0

    fun value(): Any? {
        space()
        return when (text[at]) {
            '{' -> members()
            '[' -> items()
            '"' -> string()
            else -> word()
        }
    }

    private fun members(): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        list('}') {
            space()
            val name = string()
            space()
            at++
            found[name] = value()
        }
        return found
    }

    private fun items(): List<Any?> {
        val found = ArrayList<Any?>()
        list(']') { found.add(value()) }
        return found
    }

    private fun list(end: Char, item: () -> Unit) {
        at++
        space()
        while (text[at] != end) {
            item()
            space()
            if (text[at] == ',') at++
            space()
        }
        at++
    }

    private fun string(): String {
        val from = ++at
        while (text[at] != '"') at += if (text[at] == '\\') 2 else 1
        return text.substring(from, at++)
    }

    private fun word(): Any? {
        val from = at
        while (at < text.length && text[at] !in ",]} \n") at++
        return when (val word = text.substring(from, at)) {
            "null" -> null
            "true", "false" -> word == "true"
            else -> word.toDouble()
        }
    }

    private fun space() {
        while (text[at].isWhitespace()) at++
    }
}

class JSONArray(private val items: List<*>) {
    fun length() = items.size

    fun getInt(index: Int) = (items[index] as Double).toInt()

    fun getDouble(index: Int) = items[index] as Double

    fun getString(index: Int) = items[index] as String
}

class JSONObject(private val members: Map<*, *>) {
    constructor(text: String) : this(Reader(text).value() as Map<*, *>)

    fun getJSONObject(name: String) = JSONObject(members[name] as Map<*, *>)

    fun getJSONArray(name: String) = JSONArray(members[name] as List<*>)

    fun getInt(name: String) = (members[name] as Double).toInt()

    fun getDouble(name: String) = members[name] as Double

    fun getString(name: String) = members[name] as String
}
