"""Makes tests/golden/chat/*.json: what jinja2 renders, set up as transformers sets it up, for the constructs of
published chat templates (written out anew here). Needs jinja2 only: python tests/golden/make_chat.py
Case layout: template, bos_token, eos_token, cases of {messages, add_generation_prompt, variables, rendered}."""

import json
import pathlib
from datetime import datetime, timezone

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1721952000  # 26 July 2024


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["strftime_now"] = lambda form: datetime.fromtimestamp(NOW, timezone.utc).strftime(form)
    return env


GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("roles must alternate") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be 9 characters") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""

LLAMA3_TOOLS = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message first, so that the tools can follow it. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("no first user message") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '{"name": "' + tool_call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

PHI3 = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""

OLMO = """{{ eos_token }}{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

# Every construct the interpreter knows, one a line.
CONSTRUCTS = r"""{# comment
over lines #}
{% set a, b = 1, [3, 1, 2] %}
{{ a + 2 * 3 - 4 // 3 ** 2 % 5 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 2 ** -1 }} {{ 1_000 }}
{{ b | sort | join(',') }} {{ b | sort(reverse=true) | first }} {{ b | last }} {{ b[::-1] }} {{ b[-2:] }} {{ b | sum }} {{ b|max }}{{ b|min }}
    {% if a is defined and nothing is not defined and none is none %}
    lines are stripped
    {% endif %}
  {%+ if true +%} kept {% endif %}
{{ 'x' if a > 5 }}|{{ 'x' if a > 5 else 'y' }}|{{ nothing }}|{{ nothing | default('d') }}|{{ '' | default('e', true) }}
{{ "tab\tquote\" \x41\u00e9\\" ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'a', "it's", none] ~ (1,) ~ {'k': 'v', 'n': 1.5} }}
{% for x in b if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% else %}empty{% endfor %}
{% for x in [] %}{{ x }}{% else %}empty{% endfor %}
{% for k, v in {'a': 1, 'b': {'c': 2}}.items() %}{{ k }}={{ v }} {{ loop.cycle('odd', 'even') }};{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{{ loop.previtem if loop.previtem is defined }}{% endfor %}
{% set ns = namespace(total=0, names=[]) %}{% for x in b %}{% set ns.total = ns.total + x %}{% set ns.names = ns.names + ['n' ~ x] %}{% set a = 99 %}{% endfor %}{{ ns.total }} {{ ns.names }} {{ a }}
{% set block %}
in a block {{ a }}
{% endset %}
[{{ block }}] {% set upper | upper | trim %} loud {% endset %}[{{ upper }}]
{% macro greet(name, greeting='Hello', mark=none) %}
{{ greeting }}, {{ name }}{{ mark or '.' }}
{%- endmacro %}
{{ greet('Ada') }} {{ greet('Bo', mark='!') }} {{ greet(greeting='Hi', name='Cy') }}
{% macro count(n) %}{{ n }}{% if n > 0 %},{{ count(n - 1) }}{% endif %}{% endmacro %}{{ count(3) }}
{% raw %}{{ not rendered }} {% if %}{% endraw %}

{% filter upper %}shout {{ a }}{% endfilter %} {% with z = 5, y = 6 %}{{ z + y }}{% endwith %} {{ z is defined }}
{{ 'a-b-c'.split('-') }} {{ ' a  b '.split() }} {{ 'a-b-c'.rsplit('-', 1) }} {{ 'a,b'.split(',')[1] }} {{ 'abcab'.replace('ab', 'x', 1) }} {{ 'ab'.replace('', '.') }}
{{ '  s '.strip() }}|{{ 'xxsxx'.strip('x') }}|{{ 'xs'.lstrip('x') }}|{{ 'sx'.rstrip('x') }}|{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x', 'bc')) }}|{{ 'a' in 'abc' }}|{{ 'z' not in ['a'] }}
{{ 'abc'.find('c') }} {{ 'aXb' | lower }} {{ 'größe' | upper | length }} {{ 'hello world' | title }} {{ 'hELLO' | capitalize }} {{ 'päd'[1] }}{{ 'päd'[1:] }}{{ 'abc'[::-1] }}
{{ {'b': 1, 'a': [1, 2.5, true, none, "q\"\n<é>"]} | tojson }} {{ {'b': 1, 'a': {}} | tojson(indent=2) }} {{ [1, {'z': 1, 'y': []}] | tojson(separators=(',', ':'), sort_keys=true) }}
{{ [{'n': 1, 'r': 'u'}, {'n': 2, 'r': 'a'}] | selectattr('r', 'equalto', 'u') | map(attribute='n') | list }} {{ ['a', 'b'] | map('upper') | join }} {{ [1, 2, 3] | select('odd') | list }} {{ [0, 1] | reject | list }} {{ [{'r': 1}, {}] | rejectattr('r') | list }}
{{ {'b': 2, 'A': 1} | dictsort }} {{ {'b': 2} | items | list }} {{ {'k': 1}.get('k') }} {{ {'k': 1}.get('z', 'none') }} {{ {'k': 1}.keys() | list }} {{ 'k' in {'k': 1} }} {{ dict(p=1).p }} {{ {'k': 1}['z'] is defined }}
{{ '42' | int + 1 }} {{ 'x' | int(7) }} {{ '1.5' | float }} {{ 3.7 | int }} {{ -3 | abs }} {{ 5 | string + 's' }} {{ "a\nb\n\nc" | indent(2) }} {{ "a\nb" | indent(width=1, first=true) }}
{{ 1 is number }} {{ 's' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ [] is iterable }} {{ true is boolean }} {{ true is true }} {{ 1 is true }} {{ 1 is integer }} {{ 1.0 is float }} {{ 4 is even }} {{ 4 is divisibleby 2 }} {{ 3 is in [1, 3] }} {{ 1 is not none }} {{ 1 is eq 1 }}
{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] == [1, 2] }} {{ not 1 }} {{ 1 and 0 or 'last' }} {{ (1, 2)[0] }} {{ true + 1 }} {{ 'ab' * 2 }} {{ [0] * 2 }} {{ messages | length }}
{{ strftime_now('%Y-%m-%d') }} {{ bos_token }}{{- '  trimmed' -}}   
{{ "}}" }} {{ '%}' }} {{ {'a': {'b': 1}}.a.b }} {{ [[1, 2]].0.1 }} {{ ['c', 'B', 'a', 'a'] | unique | sort | join('') }} {{ '<&>' | e }} {{ 'x' | safe }} {{ 2.5 | round }} {{ [1,2] | reverse | list }}
end
"""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city, \"now\" <b>",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo", "Zürich"]}}, "required": ["city"]},
    },
}
CALL = [
    {"role": "user", "content": " Weather in Oslo? "},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "abc123def", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}}]},
    {"role": "tool", "tool_call_id": "abc123def", "content": "{\"t\": -3.5}"},
    {"role": "assistant", "content": "Cold.\n"},
    {"role": "user", "content": "Thanks <|eot_id|> \u4f60\u597d"},
]
PLAIN = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  Hi\n"},
         {"role": "assistant", "content": " b\nc "}, {"role": "user", "content": "{{ x }} 'q' \"d\" <tag>"}]
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " what? "}]}]
TOOLS = {"tools": [WEATHER, WEATHER]}

FILES = {
    "gemma": (GEMMA, [(PLAIN, {}), (PLAIN[1:], {}), (PARTS, {})]),
    "mistral": (MISTRAL, [(PLAIN, {}), (CALL, TOOLS), (CALL[:1], TOOLS)]),
    "llama3-tools": (LLAMA3_TOOLS, [(PLAIN, {"date_string": "1 May 2025"}), (CALL, TOOLS), (CALL, {**TOOLS, "tools_in_user_message": False}), (PLAIN, {"now": NOW})]),
    "phi3": (PHI3, [(PLAIN, {}), (PLAIN[1:2], {})]),
    "olmo": (OLMO, [(PLAIN, {}), (PLAIN[1:2], {})]),
    "constructs": (CONSTRUCTS, [(PLAIN, {"now": NOW})]),
}


def main():
    folder = pathlib.Path(__file__).parent / "chat"
    folder.mkdir(exist_ok=True)
    for name, (template, inputs) in FILES.items():
        compiled = environment().from_string(template)
        cases = []
        for messages, variables in inputs:
            for prompt in (True, False):
                given = {k: v for k, v in variables.items() if k != "now"}
                text = compiled.render(messages=messages, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>", **given)
                cases.append({"messages": messages, "add_generation_prompt": prompt, "variables": {"now": NOW, **variables}, "rendered": text})
        content = {"template": template, "bos_token": "<s>", "eos_token": "</s>", "cases": cases}
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


main()
